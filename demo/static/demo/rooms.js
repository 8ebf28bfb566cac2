/**
 * The rooms I am in: one private topic for each of my teams, on the connection of the board. What
 * is said there is kept nowhere; who may listen and speak is decided by policies.
 *
 * Owns the channels and who is in them, and nothing on the screen.
 */

const SEEN_EVERY_MS = 15000;

export class Rooms {
  #client;
  #store;
  #channels = new Map();
  #listeners = { presence: new Set() };

  /**
   * @param {import("../realtime/client.js").Client} client
   * @param {import("./store.js").Store} store
   */
  constructor(client, store) {
    this.#client = client;
    this.#store = store;
    store.onChange(() => this.#follow());
    this.#follow();
    setInterval(() => this.#beSeen(), SEEN_EVERY_MS);
  }

  /**
   * Listens: "presence" is told that people came or went; any other event is a broadcast, handed
   * over with the person who sent it and the team in whose room.
   *
   * @param {string} event
   * @param {(message?: {person: object, payload: object, teamId: number}) => void} listener
   */
  on(event, listener) {
    this.#listeners[event] ??= new Set();
    this.#listeners[event].add(listener);
  }

  /** @returns {number[]} The teams whose rooms I am in. */
  get teams() {
    return [...this.#channels.keys()];
  }

  /** @returns {boolean} Whether I am in touch with every room, so that what I know is so now. */
  get isLive() {
    return [...this.#channels.values()].every((channel) => channel.status === "live");
  }

  /** @returns {Map<number, number[]>} The people here, without me, and the teams they are here for. */
  get people() {
    const people = new Map();
    for (const teamId of this.teams) {
      for (const person of this.#peopleOf(teamId)) people.set(person, [...(people.get(person) ?? []), teamId]);
    }
    return people;
  }

  /** Says something to those in a room. Nothing is said where nobody listens. */
  say(teamId, event, payload) {
    const channel = this.#channels.get(teamId);
    if (channel?.status !== "live" || this.#peopleOf(teamId).length === 0) return;
    channel.send(event, payload);
  }

  #peopleOf(teamId) {
    const channel = this.#channels.get(teamId);
    // What was heard before the connection was lost is worth something; where I am not let in, not.
    if (channel.status === "errored" && this.#client.status.status === "open") return [];
    // The server says who a member is; keys and metas are what pages choose.
    const metas = Object.values(channel.presenceState()).flat();
    const ids = new Set(metas.map((meta) => Number(meta.phx_user_id)));
    return [...ids].filter((id) => id !== this.#store.me.id && this.#store.people.has(id));
  }

  /** My teams are what the stream says they are: enters and leaves rooms accordingly. */
  #follow() {
    const { me, myTeams } = this.#store;
    const wanted = new Set(me.bypasses ? this.#store.rows("demo_team").map(({ id }) => id) : myTeams.keys());
    const left = this.teams.filter((teamId) => !wanted.has(teamId));
    for (const teamId of left) {
      this.#channels.get(teamId).unsubscribe();
      this.#channels.delete(teamId);
    }
    for (const teamId of wanted) if (!this.#channels.has(teamId)) this.#enter(teamId);
    if (left.length) this.#tell("presence");
  }

  #enter(teamId) {
    const { me } = this.#store;
    const channel = this.#client.channel(`team:${teamId}`, { private: true, presenceKey: String(me.id) });
    this.#channels.set(teamId, channel);
    channel.on("broadcast", { event: "*" }, ({ event, payload, meta }) => this.#heard(teamId, event, payload, meta?.user_id));
    channel.on("presence", { event: "sync" }, () => this.#tell("presence"));
    this.#track(channel);
    channel.subscribe(() => this.#tell("presence"));
  }

  #track(channel) {
    // Where a policy does not let me be listed, I am here unseen.
    channel.track({ name: this.#store.me.name }).catch(() => {});
  }

  /** Nobody tells me that a policy lets me be listed again. */
  #beSeen() {
    for (const channel of this.#channels.values()) {
      if (channel.status === "live" && !(this.#store.me.id in channel.presenceState())) this.#track(channel);
    }
  }

  /** Hands on what somebody in the room sent; the server says who that is. */
  #heard(teamId, event, payload, userId) {
    const id = Number(userId);
    if (event === "presence" || !this.#peopleOf(teamId).includes(id)) return;
    this.#tell(event, { person: this.#store.people.get(id), payload, teamId });
  }

  #tell(event, message) {
    for (const listener of this.#listeners[event] ?? []) listener(message);
  }
}
