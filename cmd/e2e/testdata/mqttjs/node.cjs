// MQTT.js in Node: one JSON command a line on standard input, one JSON event a
// line on standard output.
'use strict'
const drive = require('./drive.js')
const readline = require('readline')

const say = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const obey = drive(require('mqtt'), say, {
  encode: (b) => Buffer.from(b).toString('base64'),
  decode: (s) => Buffer.from(s, 'base64')
})

readline.createInterface({ input: process.stdin, crlfDelay: Infinity })
  .on('line', (line) => obey(JSON.parse(line)))
  .on('close', () => process.exit(0))
say({ event: 'hello' })
