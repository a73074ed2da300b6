// Package packets is the MQTT codec: it turns bytes into packets and packets
// into bytes, for MQTT 3.1, 3.1.1 and 5.0, in both directions.
package packets
