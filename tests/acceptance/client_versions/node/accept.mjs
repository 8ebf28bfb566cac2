// Puts versions of the official clients, unmodified, through one short run, all at once.
//
// The first line of standard input says where the server is and which tokens there are. From then on
// each line out is a check that went well or failed, or asks the test for something to be done in the
// database; each line in is the answer to that.
import { createRequire } from 'node:module'
import readline from 'node:readline'

import { WebSocket } from 'ws'

const require = createRequire(import.meta.url)
const PATIENCE = 60_000

const emit = (what) => process.stdout.write(JSON.stringify(what) + '\n')

// --- conditions that are awaited ------------------------------------------------------------------

const waiting = new Set()

// To be called after anything that a condition may depend on.
const news = () => {
  for (const look of [...waiting]) look()
}

const until = (what, condition) =>
  new Promise((resolve, reject) => {
    const end = (settle, value) => {
      waiting.delete(look)
      clearTimeout(timer)
      settle(value)
    }
    const look = () => {
      const found = condition()
      if (found) end(resolve, found)
    }
    const timer = setTimeout(() => end(reject, new Error(`it never came: ${what}`)), PATIENCE)
    waiting.add(look)
    look()
  })

const same = (what, found, wanted) => {
  const [one, other] = [found, wanted].map((value) => JSON.stringify(value))
  if (one !== other) throw new Error(`${what}: ${one} instead of ${other}`)
}

// --- the database, by the test --------------------------------------------------------------------

const asked = new Map()
let questions = 0

const ask = (deed, ...values) =>
  new Promise((resolve) => {
    questions += 1
    asked.set(questions, resolve)
    emit({ ask: questions, deed, values })
  })

// --- clients --------------------------------------------------------------------------------------

// Milliseconds until a client connects again, and until it joins again where no answer has come. They
// grow: a client that joins anew before each answer arrives never gets one that it takes.
const backOff = (tries) => Math.min(50 * 4 ** (tries - 1), 10_000)

// Old clients count their own messages and refuse some.
const push = async (send) => {
  for (;;) {
    const answer = await send()
    if (answer !== 'rate limited') return answer
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

// Clients of some versions have no WebSocket on this Node. It also shows what a client was sent, and
// can be cut off as a network would do it.
const recorder = (sockets) =>
  class extends WebSocket {
    constructor(address) {
      super(address)
      this.heard = []
      sockets.push(this)
      this.on('message', (data, isBinary) => {
        if (!isBinary) this.heard.push(JSON.parse(data.toString()))
        news()
      })
    }
  }

const SUBSCRIBED = 'Subscribed to PostgreSQL'

const heard = (list) => (payload) => {
  list.push(payload)
  news()
}

const rows = (changes) =>
  changes.map(({ eventType, new: now, old }) => [eventType, now.title ?? old.title])

// A life of rows: of these the first four may be seen, and `seven` matches the filter.
const write = async ({ version, me, other }) => {
  await ask('note', other.id, `${version} hidden`, 7)
  const one = await ask('note', me.id, `${version} one`, 1)
  await ask('note', me.id, `${version} seven`, 7)
  await ask('change', one, `${version} changed`)
  await ask('delete', one)
}

const life = ({ version }) => [
  ['INSERT', `${version} one`],
  ['INSERT', `${version} seven`],
  ['UPDATE', `${version} changed`],
  ['DELETE', `${version} changed`],
]

const modern = async (run) => {
  const { version, me, other, check } = run
  const { RealtimeClient } = require(run.alias)
  const connect = (person, sockets) => {
    const options = {
      params: { apikey: run.key, eventsPerSecond: 1_000 },
      reconnectAfterMs: backOff,
    }
    // Clients of two versions take a `transport` and then do not listen to it.
    if (!run.ownTransport) options.transport = recorder(sockets)
    const client = new RealtimeClient(run.address, options)
    client.setAuth(person.token)
    client.connect()
    return client
  }
  const subscribe = async (channel) => {
    const statuses = []
    channel.subscribe((status, error) => {
      statuses.push(status)
      if (error) statuses.error = error
      news()
    })
    await until('a status', () => statuses.length)
    return statuses
  }
  const subscribed = async (channel) => same('status', (await subscribe(channel))[0], 'SUBSCRIBED')

  const sockets = []
  const one = connect(me, sockets)
  const two = connect(me, [])
  const table = { schema: 'public', table: 'zoo_note' }
  const all = []
  const inserts = []
  const sevens = []
  const notes = one.channel(`notes ${version}`)
  const flows = []
  notes.on('system', {}, ({ message }) => message === SUBSCRIBED && heard(flows)(message))

  await check('changes', async () => {
    notes
      .on('postgres_changes', { event: '*', ...table }, heard(all))
      .on('postgres_changes', { event: 'INSERT', ...table }, heard(inserts))
      .on('postgres_changes', { event: '*', ...table, filter: 'score=eq.7' }, heard(sevens))
    await subscribed(notes)
    await until('Subscribed', () => flows.length)
    await write(run)
    await until('the last change', () => all.some((change) => change.eventType === 'DELETE'))
    same('changes', rows(all), life(run))
    same('inserts', rows(inserts), life(run).slice(0, 2))
    same('filtered', rows(sevens), [['INSERT', `${version} seven`]])
    same('a number', typeof all[0].new.id, 'number')
  })

  for (const ack of [true, false]) {
    await check(ack ? 'broadcast with ack' : 'broadcast', async () => {
      const config = { broadcast: { ack, self: false } }
      const [mine, theirs] = [one, two].map((client) =>
        client.channel(`room ${ack} ${version}`, { config })
      )
      const messages = []
      const own = []
      theirs.on('broadcast', { event: 'said' }, heard(messages))
      mine.on('broadcast', { event: 'said' }, heard(own))
      await subscribed(mine)
      await subscribed(theirs)
      for (const n of [1, 2]) {
        const message = { type: 'broadcast', event: 'said', payload: { n } }
        same('answer', await push(() => mine.send(message)), 'ok')
      }
      await until('both', () => messages.length === 2)
      same('messages', messages.map(({ payload }) => payload), [{ n: 1 }, { n: 2 }])
      same('own', own, [])
      same('leaving', await mine.unsubscribe(), 'ok')
      same('leaving', await theirs.unsubscribe(), 'ok')
    })
  }

  await check('presence', async () => {
    const [ada, bob] = [
      ['ada', one],
      ['bob', two],
    ].map(([key, client]) =>
      client.channel(`present ${version}`, { config: { presence: { key } } })
    )
    for (const channel of [ada, bob]) {
      channel.on('presence', { event: 'sync' }, news)
      await subscribed(channel)
    }
    same('track', await push(() => ada.track({ name: 'Ada' })), 'ok')
    same('track', await push(() => bob.track({ name: 'Bob' })), 'ok')
    const names = (channel) =>
      Object.entries(channel.presenceState())
        .map(([key, [{ name }]]) => `${key} ${name}`)
        .sort()
        .join()
    for (const channel of [ada, bob]) {
      await until('both', () => names(channel) === 'ada Ada,bob Bob')
    }
    same('untrack', await push(() => bob.untrack()), 'ok')
    await until('one', () => names(ada) === 'ada Ada')
    same('leaving', await ada.unsubscribe(), 'ok')
    same('leaving', await bob.unsubscribe(), 'ok')
  })

  await check('private', async () => {
    const config = { private: true, broadcast: { ack: true } }
    const [mine, theirs] = [one, two].map((client) =>
      client.channel(`open ${version}`, { config })
    )
    const messages = []
    theirs.on('broadcast', { event: 'said' }, heard(messages))
    await subscribed(mine)
    await subscribed(theirs)
    const sent = mine.send({ type: 'broadcast', event: 'said', payload: { n: 1 } })
    same('answer', await sent, 'ok')
    await until('it', () => messages.length)
    const shut = one.channel(`shut ${version}`, { config })
    const statuses = await subscribe(shut)
    same('status', statuses[0], 'CHANNEL_ERROR')
    if (!String(statuses.error?.message).includes('permissions'))
      throw new Error(`the reason is ${statuses.error?.message}`)
    await shut.unsubscribe()
    await mine.unsubscribe()
    await theirs.unsubscribe()
  })

  await check('reconnect', async () => {
    const before = flows.length
    const socket = sockets[0] ?? one.conn
    socket.terminate()
    await until('Subscribed', () => flows.length > before)
    await ask('note', me.id, `${version} again`, 7)
    await until('a change', () => rows(sevens).some(([, title]) => title === `${version} again`))
  })

  await check('access token', async () => {
    const before = flows.length
    await one.setAuth(other.token)
    await until('Subscribed', () => flows.length > before)
    const start = all.length
    await ask('note', me.id, `${version} mine no more`, 1)
    await ask('note', other.id, `${version} other`, 1)
    await until('a change', () => all.length > start)
    same('changes', rows(all.slice(start)), [['INSERT', `${version} other`]])
  })

  await check('unsubscribe', async () => {
    const later = []
    const rest = one.channel(`rest ${version}`)
    rest.on('postgres_changes', { event: '*', ...table }, heard(later))
    const ready = []
    rest.on('system', {}, ({ message }) => message === SUBSCRIBED && heard(ready)(message))
    await subscribed(rest)
    await until('Subscribed', () => ready.length)
    const start = all.length
    same('leaving', await notes.unsubscribe(), 'ok')
    await ask('note', other.id, `${version} last`, 7)
    await until('a change', () => later.length)
    same('changes', all.length, start)
    same('leaving', await rest.unsubscribe(), 'ok')
  })

  one.disconnect()
  two.disconnect()
}

// supabase-js 1 names a table by the topic.
const legacy = async (run) => {
  const { version, me, other, check } = run
  const { createClient } = require(run.alias)
  const sockets = []
  const flows = (socket) => {
    const told = socket.heard.filter(({ event }) => event === 'system')
    return told.filter(({ payload }) => payload.message === SUBSCRIBED).length
  }
  const client = createClient(run.url, run.key, {
    persistSession: false,
    autoRefreshToken: false,
    headers: { Authorization: `Bearer ${me.token}` },
    realtime: { transport: recorder(sockets), reconnectAfterMs: backOff },
  })
  const subscribe = async (query) => {
    const statuses = []
    const subscription = query.subscribe((status) => {
      statuses.push(status)
      news()
    })
    await until('a status', () => statuses.length)
    same('status', statuses[0], 'SUBSCRIBED')
    return subscription
  }
  const all = []
  const updates = []
  const sevens = []
  const every = []
  let notes

  await check('changes', async () => {
    const query = client.from('zoo_note').on('*', heard(all)).on('UPDATE', heard(updates))
    notes = await subscribe(query)
    await subscribe(client.from('zoo_note:score=eq.7').on('INSERT', heard(sevens)))
    await subscribe(client.from('*').on('*', heard(every)))
    await until('Subscribed', () => flows(sockets[0]) === 3)
    await write(run)
    for (const list of [all, every]) {
      await until('the last change', () => list.some((change) => change.eventType === 'DELETE'))
      same('changes', rows(list), life(run))
    }
    same('updates', rows(updates), [['UPDATE', `${version} changed`]])
    same('filtered', rows(sevens), [['INSERT', `${version} seven`]])
    same('table', [all[0].schema, all[0].table], ['public', 'zoo_note'])
    same('a number', typeof all[0].new.id, 'number')
  })

  await check('reconnect', async () => {
    sockets[0].terminate()
    const again = await until('another socket', () => sockets[1])
    await until('Subscribed', () => flows(again) === 3)
    await ask('note', me.id, `${version} again`, 7)
    await until('a change', () => rows(sevens).some(([, title]) => title === `${version} again`))
  })

  await check('access token', async () => {
    const before = flows(sockets.at(-1))
    client.realtime.setAuth(other.token)
    await until('Subscribed', () => flows(sockets.at(-1)) === before + 3)
    const start = all.length
    await ask('note', me.id, `${version} mine no more`, 1)
    await ask('note', other.id, `${version} other`, 1)
    await until('a change', () => all.length > start)
    same('changes', rows(all.slice(start)), [['INSERT', `${version} other`]])
  })

  await check('unsubscribe', async () => {
    const start = all.length
    const { error } = await client.removeSubscription(notes)
    same('leaving', error, null)
    await ask('note', other.id, `${version} last`, 7)
    await until('a change', () => rows(every).some(([, title]) => title === `${version} last`))
    same('changes', all.length, start)
  })

  await client.removeAllSubscriptions()
  client.realtime.disconnect()
}

// --- all of them ----------------------------------------------------------------------------------

const failures = (error) => emit({ failure: String(error.stack ?? error) })
process.on('unhandledRejection', failures)
process.on('uncaughtException', failures)

const runOf = ({ alias, version, ...rest }) => {
  const check = async (name, body) => {
    if (!rest.checks.includes(name)) return
    try {
      await body()
      emit({ version, check: name })
    } catch (error) {
      emit({ version, check: name, error: String(error.stack ?? error) })
    }
  }
  return { alias, version, check, ...rest }
}

const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const { runs, ...where } = JSON.parse((await input.next()).value)
const answers = async () => {
  for await (const line of { [Symbol.asyncIterator]: () => input }) {
    const { ask: number, value } = JSON.parse(line)
    asked.get(number)(value)
    asked.delete(number)
  }
}
answers()
await Promise.all(
  runs.map((one) => (one.legacy ? legacy : modern)(runOf({ ...where, ...one })).catch(failures))
)
process.exit(0)
