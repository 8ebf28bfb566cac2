// Drives the official clients, unmodified, at the word of a test: one JSON command a line comes in,
// answers and everything the clients hear go out, one JSON object a line.
import readline from 'node:readline'

import { RealtimeClient } from '@supabase/realtime-js'
import { createClient } from '@supabase/supabase-js'
import { WebSocket } from 'ws'

const clients = new Map()

const hex = (buffer) => Buffer.from(buffer).toString('hex')
const unhex = (text) => Uint8Array.from(Buffer.from(text, 'hex')).buffer

const emit = (what) => process.stdout.write(JSON.stringify(what) + '\n')

// The clients have no WebSocket of their own on every Node; this one also tells the test what came.
const recordingSocket = (name) =>
  class extends WebSocket {
    constructor(address, protocols) {
      super(address, protocols)
      clients.get(name).sockets.push(this)
      this.on('message', (data, isBinary) => {
        if (!isBinary) emit({ event: 'frame', client: name, text: data.toString() })
        else emit({ event: 'frame', client: name, bytes: data.toString('hex') })
      })
      const send = this.send.bind(this)
      this.send = (data) => {
        if (typeof data === 'string') emit({ event: 'sent', client: name, text: data })
        return send(data)
      }
      this.on('close', (code) => emit({ event: 'closed', client: name, code }))
    }
  }

const commands = {
  async open({ client, library, url, key, vsn, callback, token, heartbeat, reconnect }) {
    const it = { sockets: [], channels: new Map(), token }
    clients.set(client, it)
    const options = { transport: recordingSocket(client), vsn }
    if (heartbeat) options.heartbeatIntervalMs = heartbeat
    // It grows: a client that joins anew before each answer arrives never gets one that it takes.
    if (reconnect) options.reconnectAfterMs = (tries) => Math.min(reconnect * 4 ** (tries - 1), 10_000)
    options.heartbeatCallback = (status) => emit({ event: 'heartbeat', client, status })
    const accessToken = callback ? async () => it.token : undefined
    if (library === 'supabase') {
      it.supabase = createClient(url, key, {
        realtime: options,
        accessToken,
        auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
      })
      it.realtime = it.supabase.realtime
    } else {
      const address = url.replace(/^http/, 'ws') + '/realtime/v1'
      it.realtime = new RealtimeClient(address, { ...options, params: { apikey: key }, accessToken })
    }
    // Else a join that waits for the socket to open would leave without the token.
    if (callback) await it.realtime.setAuth()
  },

  channel({ client, channel, config, bindings, broadcasts, presence }) {
    const it = clients.get(client)
    const maker = it.supabase ?? it.realtime
    const topic = maker.channel(channel, config ? { config } : undefined)
    it.channels.set(channel, topic)
    for (const [index, binding] of (bindings ?? []).entries()) {
      topic.on('postgres_changes', binding, (payload) =>
        emit({ event: 'change', client, channel, binding: index, payload })
      )
    }
    topic.on('system', {}, (payload) => emit({ event: 'system', client, channel, payload }))
    if (broadcasts) {
      topic.on('broadcast', { event: '*' }, (message) => {
        const bytes = message.payload instanceof ArrayBuffer
        const payload = bytes ? { ...message, payload: hex(message.payload) } : message
        emit({ event: 'broadcast', client, channel, payload, bytes })
      })
    }
    if (presence) {
      topic.on('presence', { event: 'sync' }, () =>
        emit({ event: 'presence', client, channel, state: topic.presenceState() })
      )
      for (const what of ['join', 'leave']) {
        topic.on('presence', { event: what }, ({ key, newPresences, leftPresences }) =>
          emit({ event: what, client, channel, key, metas: newPresences ?? leftPresences })
        )
      }
    }
    topic.subscribe((status, error) =>
      emit({ event: 'status', client, channel, status, error: error && String(error.message) })
    )
  },

  async setAuth({ client, token }) {
    await clients.get(client).realtime.setAuth(token)
  },

  // What the accessToken callback will answer from now on.
  setCallbackToken({ client, token }) {
    clients.get(client).token = token
  },

  async heartbeat({ client }) {
    await clients.get(client).realtime.sendHeartbeat()
  },

  async send({ client, channel, name, payload, bytes, persist }) {
    const message = { type: 'broadcast', event: name, payload: bytes ? unhex(bytes) : payload }
    if (persist) message.persist = true
    return clients.get(client).channels.get(channel).send(message)
  },

  async httpSend({ client, channel, name, payload, bytes, persist }) {
    const topic = clients.get(client).channels.get(channel)
    return topic.httpSend(name, bytes ? unhex(bytes) : payload, persist ? { persist } : {})
  },

  async untrack({ client, channel }) {
    return clients.get(client).channels.get(channel).untrack()
  },

  async track({ client, channel, payload }) {
    return clients.get(client).channels.get(channel).track(payload)
  },

  async unsubscribe({ client, channel }) {
    return clients.get(client).channels.get(channel).unsubscribe()
  },

  async remove({ client, channel }) {
    const it = clients.get(client)
    return (it.supabase ?? it.realtime).removeChannel(it.channels.get(channel))
  },

  async removeAll({ client }) {
    const it = clients.get(client)
    return (it.supabase ?? it.realtime).removeAllChannels()
  },

  // The network goes away: no closing handshake.
  cut({ client }) {
    clients.get(client).sockets.at(-1).terminate()
  },

  state({ client, channel }) {
    const it = clients.get(client)
    return {
      connected: it.realtime.isConnected(),
      channels: it.realtime.getChannels().length,
      channel: channel && it.channels.get(channel).state,
    }
  },
}

process.on('unhandledRejection', (error) => emit({ event: 'failure', error: String(error.stack) }))
process.on('uncaughtException', (error) => emit({ event: 'failure', error: String(error.stack) }))

const input = readline.createInterface({ input: process.stdin })
input.on('line', async (line) => {
  const { id, command, ...rest } = JSON.parse(line)
  try {
    emit({ event: 'answer', id, value: (await commands[command](rest)) ?? null })
  } catch (error) {
    emit({ event: 'answer', id, error: String(error.stack) })
  }
})
input.on('close', () => process.exit(0))
