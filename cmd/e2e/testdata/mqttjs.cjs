// Drives MQTT.js for the Go tests: one JSON command a line on standard input,
// one JSON event a line on standard output. Payloads are base64.
'use strict'
const mqtt = require('mqtt')
const readline = require('readline')

const clients = new Map()
const say = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const base64 = (b) => (b ? Buffer.from(b).toString('base64') : '')
const buffer = (s) => Buffer.from(s || '', 'base64')

const commands = {
  connect ({ c, url, options }) {
    if (options.will) options.will.payload = buffer(options.will.payload)
    const client = mqtt.connect(url, { reconnectPeriod: 0, connectTimeout: 30000, ...options })
    clients.set(c, client)
    client.on('connect', (p) => say({ event: 'connect', c, present: !!p.sessionPresent }))
    client.on('disconnect', (p) => say({ event: 'disconnect', c, code: p.reasonCode || 0 }))
    client.on('close', () => say({ event: 'close', c }))
    client.on('error', (e) => say({ event: 'error', c, error: String(e) }))
    client.on('message', (topic, payload, p) => {
      const props = p.properties || {}
      const user = []
      for (const [key, value] of Object.entries(props.userProperties || {})) {
        for (const v of [].concat(value)) user.push({ Key: key, Value: v })
      }
      say({
        event: 'message', c, topic, payload: base64(payload), qos: p.qos, retain: p.retain,
        response: props.responseTopic || '', correlation: base64(props.correlationData), user
      })
    })
  },
  subscribe ({ c, id, filter, qos }) {
    clients.get(c).subscribe(filter, { qos }, (e, granted) =>
      say({ event: 'done', id, error: e ? String(e) : '', code: granted && granted[0] ? granted[0].qos : 255 }))
  },
  publish ({ c, id, topic, payload, options }) {
    const props = options.properties
    if (props && props.correlationData) props.correlationData = buffer(props.correlationData)
    if (props && props.userProperties) { // pairs in order → object of arrays, keys in order
      const user = {}
      for (const { Key, Value } of props.userProperties) (user[Key] = user[Key] || []).push(Value)
      props.userProperties = user
    }
    clients.get(c).publish(topic, buffer(payload), options, (e) => say({ event: 'done', id, error: e ? String(e) : '' }))
  },
  end ({ c }) { clients.get(c).end() },
  cut ({ c }) { clients.get(c).stream.destroy() }
}

readline.createInterface({ input: process.stdin, crlfDelay: Infinity })
  .on('line', (line) => { const m = JSON.parse(line); commands[m.op](m) })
  .on('close', () => process.exit(0))
say({ event: 'hello' })
