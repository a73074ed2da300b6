/*
 * One connection of Eclipse Paho's synchronous C client (MQTTClient without
 * callbacks, one thread), driven by the Go tests: a command a line on standard
 * input, answers in the same order and messages as they come on standard output.
 *
 *	connect URI ID VERSION DURABLE [TOPIC PAYLOAD QOS RETAIN]   -> connected PRESENT
 *	subscribe FILTER QOS                                        -> granted CODE
 *	publish TOPIC PAYLOAD QOS RETAIN RESPONSE CORRELATION [KEY VALUE]... -> published
 *	disconnect                                                  -> (the program ends)
 *	message TOPIC PAYLOAD QOS RETAIN RESPONSE CORRELATION [KEY VALUE]...
 *	failed CODE TEXT      instead of an answer
 *
 * Text and bytes are "=" and hexadecimal digits, "-" if absent. The next command
 * is written only after the answer to the last. The program ends, with 2, when
 * the server ends the connection.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "MQTTClient.h"

#define PATIENCE 30000 /* milliseconds */
#define TURN 3 /* milliseconds that the network has before the next look at standard input */
#define MAX_WORDS 64

struct bytes {
	char *data; /* NULL if absent; a zero byte follows */
	int len;
};

static MQTTClient client;
static int version;

static int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

static struct bytes decode(const char *word) {
	struct bytes b = {NULL, 0};
	if (word[0] != '=')
		return b;
	b.len = (int)(strlen(word + 1) / 2);
	b.data = malloc((size_t)b.len + 1);
	if (b.data == NULL)
		abort();
	for (int i = 0; i < b.len; i++)
		b.data[i] = (char)(digit(word[1 + 2 * i]) << 4 | digit(word[2 + 2 * i]));
	b.data[b.len] = 0;
	return b;
}

static void encode(const char *data, int len) {
	static const char digits[] = "0123456789abcdef";
	fputs(" =", stdout);
	for (int i = 0; i < len; i++) {
		putchar_unlocked(digits[(unsigned char)data[i] >> 4]);
		putchar_unlocked(digits[data[i] & 15]);
	}
}

static void say(const char *what, int number) {
	printf("%s %d\n", what, number);
	fflush(stdout);
}

static void failed(int code) {
	const char *text = MQTTClient_strerror(code);
	printf("failed %d %s\n", code, text ? text : "");
	fflush(stdout);
}

static void property(MQTTProperties *props, enum MQTTPropertyCodes id) {
	MQTTProperty *p = MQTTProperties_getProperty(props, id);
	if (p == NULL)
		fputs(" -", stdout);
	else
		encode(p->value.data.data, p->value.data.len);
}

static void print(const char *topic, int topic_len, MQTTClient_message *m) {
	fputs("message", stdout);
	encode(topic, topic_len);
	encode(m->payload, m->payloadlen);
	printf(" %d %d", m->qos, m->retained);
	property(&m->properties, MQTTPROPERTY_CODE_RESPONSE_TOPIC);
	property(&m->properties, MQTTPROPERTY_CODE_CORRELATION_DATA);
	int n = MQTTProperties_propertyCount(&m->properties, MQTTPROPERTY_CODE_USER_PROPERTY);
	for (int i = 0; i < n; i++) {
		MQTTProperty *p = MQTTProperties_getPropertyAt(&m->properties, MQTTPROPERTY_CODE_USER_PROPERTY, i);
		encode(p->value.data.data, p->value.data.len);
		encode(p->value.value.data, p->value.value.len);
	}
	putchar('\n');
	fflush(stdout);
}

/* receive prints what comes within a turn, and ends the program with the connection. */
static void receive(void) {
	char *topic = NULL;
	int topic_len = 0;
	MQTTClient_message *m = NULL;
	int rc = MQTTClient_receive(client, &topic, &topic_len, &m, TURN);
	if (m != NULL) {
		print(topic, topic_len, m);
		MQTTClient_freeMessage(&m);
		MQTTClient_free(topic);
	} else if (rc != MQTTCLIENT_SUCCESS || !MQTTClient_isConnected(client)) {
		exit(2);
	}
}

/* acknowledge waits until the exchange of a message is complete. */
static void acknowledge(MQTTClient_deliveryToken token) {
	for (;;) {
		MQTTClient_deliveryToken *pending = NULL;
		int found = 0;
		if (MQTTClient_getPendingDeliveryTokens(client, &pending) != MQTTCLIENT_SUCCESS)
			exit(2);
		for (int i = 0; pending != NULL && pending[i] != -1; i++)
			found |= pending[i] == token;
		MQTTClient_free(pending);
		if (!found)
			return;
		receive();
	}
}

static void do_connect(int n, char **w) {
	struct bytes id = decode(w[2]);
	version = atoi(w[3]);
	int durable = atoi(w[4]);
	MQTTClient_createOptions create = MQTTClient_createOptions_initializer;
	create.MQTTVersion = version;
	int rc = MQTTClient_createWithOptions(&client, w[1], id.data, MQTTCLIENT_PERSISTENCE_NONE, NULL, &create);
	MQTTClient_setCommandTimeout(client, PATIENCE);
	free(id.data);
	if (rc != MQTTCLIENT_SUCCESS) {
		failed(rc);
		return;
	}
	MQTTClient_willOptions will = MQTTClient_willOptions_initializer;
	struct bytes topic = {NULL, 0}, payload = {NULL, 0};
	if (n > 8) {
		topic = decode(w[5]);
		payload = decode(w[6]);
		will.topicName = topic.data;
		will.payload.data = payload.data;
		will.payload.len = payload.len;
		will.qos = atoi(w[7]);
		will.retained = atoi(w[8]);
	}
	MQTTClient_connectOptions v3 = MQTTClient_connectOptions_initializer;
	MQTTClient_connectOptions v5 = MQTTClient_connectOptions_initializer5;
	MQTTClient_connectOptions *o = version == MQTTVERSION_5 ? &v5 : &v3;
	o->MQTTVersion = version;
	o->connectTimeout = PATIENCE / 1000;
	o->will = n > 8 ? &will : NULL;
	if (version == MQTTVERSION_5) {
		MQTTProperties props = MQTTProperties_initializer;
		MQTTProperty expiry = {.identifier = MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, .value.integer4 = 3600};
		if (durable)
			MQTTProperties_add(&props, &expiry);
		o->cleanstart = !durable;
		MQTTResponse r = MQTTClient_connect5(client, o, &props, NULL);
		rc = r.reasonCode;
		MQTTResponse_free(r);
		MQTTProperties_free(&props);
	} else {
		o->cleansession = !durable;
		rc = MQTTClient_connect(client, o);
	}
	free(topic.data);
	free(payload.data);
	if (rc != MQTTCLIENT_SUCCESS)
		failed(rc);
	else
		say("connected", o->returned.sessionPresent);
}

static void do_subscribe(char **w) {
	struct bytes filter = decode(w[1]);
	int qos = atoi(w[2]);
	if (version == MQTTVERSION_5) {
		MQTTSubscribe_options o = MQTTSubscribe_options_initializer;
		MQTTResponse r = MQTTClient_subscribe5(client, filter.data, qos, &o, NULL);
		if (r.reasonCode < 0)
			failed(r.reasonCode);
		else
			say("granted", r.reasonCode);
		MQTTResponse_free(r);
	} else {
		char *filters[1] = {filter.data};
		int rc = MQTTClient_subscribeMany(client, 1, filters, &qos); /* replaces qos */
		if (rc != MQTTCLIENT_SUCCESS)
			failed(rc);
		else
			say("granted", qos);
	}
	free(filter.data);
}

static void add(MQTTProperties *props, enum MQTTPropertyCodes id, struct bytes key, struct bytes value) {
	MQTTProperty p = {.identifier = id};
	if (key.data == NULL)
		return;
	p.value.data.data = key.data;
	p.value.data.len = key.len;
	p.value.value.data = value.data;
	p.value.value.len = value.len;
	MQTTProperties_add(props, &p); /* copies */
	free(key.data);
	free(value.data);
}

static void do_publish(int n, char **w) {
	struct bytes topic = decode(w[1]), payload = decode(w[2]), none = {NULL, 0};
	MQTTClient_message m = MQTTClient_message_initializer;
	m.payload = payload.data;
	m.payloadlen = payload.len;
	m.qos = atoi(w[3]);
	m.retained = atoi(w[4]);
	MQTTClient_deliveryToken token;
	int rc;
	if (version == MQTTVERSION_5) {
		add(&m.properties, MQTTPROPERTY_CODE_RESPONSE_TOPIC, decode(w[5]), none);
		add(&m.properties, MQTTPROPERTY_CODE_CORRELATION_DATA, decode(w[6]), none);
		for (int i = 7; i + 1 < n; i += 2)
			add(&m.properties, MQTTPROPERTY_CODE_USER_PROPERTY, decode(w[i]), decode(w[i + 1]));
		MQTTResponse r = MQTTClient_publishMessage5(client, topic.data, &m, &token);
		rc = r.reasonCode;
		MQTTResponse_free(r);
		MQTTProperties_free(&m.properties);
	} else {
		rc = MQTTClient_publishMessage(client, topic.data, &m, &token);
	}
	if (rc == MQTTCLIENT_SUCCESS && m.qos > 0)
		acknowledge(token); /* MQTTClient_waitForCompletion does so in steps of 100 ms */
	if (rc != MQTTCLIENT_SUCCESS)
		failed(rc);
	else
		say("published", 0);
	free(topic.data);
	free(payload.data);
}

/* next waits for a command, and lets the network have its turns. */
static int next(char **line, size_t *size) {
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	while (client != NULL && poll(&in, 1, 0) == 0)
		receive();
	return getline(line, size, stdin) > 0;
}

int main(void) {
	char *line = NULL;
	size_t size = 0;
	while (next(&line, &size)) {
		char *w[MAX_WORDS + 1], *rest = line;
		int n = 0;
		while (n < MAX_WORDS && (w[n] = strtok_r(n ? NULL : line, " \n", &rest)) != NULL)
			n++;
		if (n >= 5 && strcmp(w[0], "connect") == 0)
			do_connect(n, w);
		else if (n == 3 && strcmp(w[0], "subscribe") == 0)
			do_subscribe(w);
		else if (n >= 7 && strcmp(w[0], "publish") == 0)
			do_publish(n, w);
		else if (n == 1 && strcmp(w[0], "disconnect") == 0)
			break;
		else
			failed(-1);
	}
	free(line);
	int rc = version == MQTTVERSION_5 ? MQTTClient_disconnect5(client, PATIENCE, MQTTREASONCODE_SUCCESS, NULL)
									  : MQTTClient_disconnect(client, PATIENCE);
	MQTTClient_destroy(&client);
	return rc == MQTTCLIENT_SUCCESS ? 0 : 1;
}
