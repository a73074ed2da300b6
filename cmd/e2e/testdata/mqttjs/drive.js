// Drives MQTT.js for the Go tests, in Node and in a web page: drive returns the
// function that obeys a command; say takes each event. Payloads are base64,
// which bytes.encode and bytes.decode translate.
'use strict'

function drive (mqtt, say, bytes) { // eslint-disable-line no-unused-vars
  const clients = new Map()
  const commands = {
    connect ({ c, url, options }) {
      if (options.will) options.will.payload = bytes.decode(options.will.payload || '')
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
          event: 'message', c, topic, payload: bytes.encode(payload), qos: p.qos, retain: p.retain,
          response: props.responseTopic || '', correlation: props.correlationData ? bytes.encode(props.correlationData) : '', user
        })
      })
    },
    subscribe ({ c, id, filter, qos }) {
      clients.get(c).subscribe(filter, { qos }, (e, granted) =>
        say({ event: 'done', id, error: e ? String(e) : '', code: granted && granted[0] ? granted[0].qos : 255 }))
    },
    publish ({ c, id, topic, payload, options }) {
      const props = options.properties
      if (props && props.correlationData) props.correlationData = bytes.decode(props.correlationData)
      if (props && props.userProperties) { // pairs in order → object of arrays, keys in order
        const user = {}
        for (const { Key, Value } of props.userProperties) (user[Key] = user[Key] || []).push(Value)
        props.userProperties = user
      }
      clients.get(c).publish(topic, bytes.decode(payload || ''), options, (e) => say({ event: 'done', id, error: e ? String(e) : '' }))
    },
    end ({ c }) { clients.get(c).end() },
    cut ({ c }) { clients.get(c).stream.destroy() }
  }
  return (m) => commands[m.op](m)
}

if (typeof module !== 'undefined') module.exports = drive
