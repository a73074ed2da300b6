// Package e2e tests the real binary from outside, with the clients that people
// use. It has no code of its own, only tests:
//
//	paho5_test.go      paho.golang, MQTT 5
//	paho3_test.go      paho.mqtt.golang, MQTT 3.1.1
//	pahoc_test.go      Paho C (MQTTClient), MQTT 5 and 3.1.1: testdata/pahoc
//	mosquitto_test.go  mosquitto_pub and mosquitto_sub, MQTT 5, 3.1.1 and 3.1
//	mqttjs_test.go     MQTT.js in Node, MQTT 5 and 3.1.1, over WebSocket and TCP
//	chromium_test.go   MQTT.js in a web page of headless Chromium, over WebSocket
//	       │
//	       └─ each is a kit; scenario_test.go plays the same stories with all:
//	          QoS 0, 1 and 2 · retained get and clear · will · offline queue over
//	          kill -9 · shared subscription · request and response with user
//	          properties · 5 MiB payload · session takeover
//
//	options_test.go      every option of the mosquitto programs for MQTT 5
//	firstminute_test.go  starting and stopping: exit codes, messages, signals
//
// TestMain builds ./cmd/comqtt once. Each test starts its own broker on free
// ports of 127.0.0.1 with a data directory of its own, waits for /readyz, and
// kills it by process id at the end. Every wait has a deadline, none is a sleep.
// A kit whose programs are missing is skipped and says what to install;
// `make test` installs them where it may. Node finds the package mqtt by
// NODE_PATH or in .tools/node_modules at the top of the repository.
package e2e
