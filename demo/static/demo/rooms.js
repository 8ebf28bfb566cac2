/**
 * The user's rooms: one private topic for each of their teams, on the connection of the board. What
 * is sent there is not stored; policies decide who may receive and send.
 *
 * Owns the channels and who is present in them, and nothing on the screen.
 */

const SEEN_EVERY_MS = 15000;

export class Rooms {
  #client;
  #rows;
  #channels = new Map();
  #listeners = { presence: new Set() };

  /**
   * @param {import("../realtime/client.js").Client} client
   * @param {import("./board_rows.js").BoardRows} rows
   */
  constructor(client, rows) {
    this.#client = client;
    this.#rows = rows;
    rows.onChange(() => this.#follow());
    this.#follow();
    setInterval(() => this.#beSeen(), SEEN_EVERY_MS);
  }

  /**
   * Adds a listener. For "presence" it is called without a message when people came or went. Any
   * other event is a broadcast, passed with its sender and the team of its room.
   *
   * @param {string} event
   * @param {(message?: {person: object, payload: object, teamId: number}) => void} listener
   */
  on(event, listener) {
    this.#listeners[event] ??= new Set();
    this.#listeners[event].add(listener);
  }

  /** @returns {number[]} The teams whose rooms are joined. */
  get teams() {
    return [...this.#channels.keys()];
  }

  /** @returns {boolean} Whether every room is joined, so that the people in them are up to date. */
  get isLive() {
    return [...this.#channels.values()].every((channel) => channel.status === "live");
  }

  /** @returns {Map<number, number[]>} Ids of the people present, without the user, and the teams in
   *   whose rooms they are. */
  get people() {
    const people = new Map();
    for (const teamId of this.teams) {
      for (const person of this.#peopleOf(teamId)) people.set(person, [...(people.get(person) ?? []), teamId]);
    }
    return people;
  }

  /** Broadcasts to a room. Sends nothing where no one else is present. */
  say(teamId, event, payload) {
    const channel = this.#channels.get(teamId);
    if (channel?.status !== "live" || this.#peopleOf(teamId).length === 0) return;
    channel.send(event, payload);
  }

  #peopleOf(teamId) {
    const channel = this.#channels.get(teamId);
    // While the connection is lost the people of before count; where the join was refused, none do.
    if (channel.status === "errored" && this.#client.status.status === "open") return [];
    // `phx_user_id` is set by the server; keys and metas are chosen by pages.
    const metas = Object.values(channel.presenceState()).flat();
    const ids = new Set(metas.map((meta) => Number(meta.phx_user_id)));
    return [...ids].filter((id) => id !== this.#rows.me.id && this.#rows.people.has(id));
  }

  /** Joins and leaves rooms, so that they are those of the user's teams. */
  #follow() {
    const { me, myTeams } = this.#rows;
    const wanted = new Set(me.bypasses ? this.#rows.all("demo_team").map(({ id }) => id) : myTeams.keys());
    const left = this.teams.filter((teamId) => !wanted.has(teamId));
    for (const teamId of left) {
      this.#channels.get(teamId).unsubscribe();
      this.#channels.delete(teamId);
    }
    for (const teamId of wanted) if (!this.#channels.has(teamId)) this.#enter(teamId);
    if (left.length) this.#tell("presence");
  }

  #enter(teamId) {
    const { me } = this.#rows;
    const channel = this.#client.channel(`team:${teamId}`, { private: true, presenceKey: String(me.id) });
    this.#channels.set(teamId, channel);
    channel.on("broadcast", { event: "*" }, ({ event, payload, meta }) => this.#heard(teamId, event, payload, meta?.user_id));
    channel.on("presence", { event: "sync" }, () => this.#tell("presence"));
    this.#track(channel);
    channel.subscribe(() => this.#tell("presence"));
  }

  #track(channel) {
    // A policy may refuse it: then the user receives the room and is not listed.
    channel.track({ name: this.#rows.me.name }).catch(() => {});
  }

  /** Tries again, because the server sends nothing when a policy allows `track` again. */
  #beSeen() {
    for (const channel of this.#channels.values()) {
      if (channel.status === "live" && !(this.#rows.me.id in channel.presenceState())) this.#track(channel);
    }
  }

  /** Passes a broadcast to the listeners, with its sender by the `user_id` that the server set. */
  #heard(teamId, event, payload, userId) {
    const id = Number(userId);
    if (event === "presence" || !this.#peopleOf(teamId).includes(id)) return;
    this.#tell(event, { person: this.#rows.people.get(id), payload, teamId });
  }

  #tell(event, message) {
    for (const listener of this.#listeners[event] ?? []) listener(message);
  }
}
