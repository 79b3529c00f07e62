/**
 * What the broker has promised to consumer groups: commits that were acknowledged, one leader and one assignment a
 * generation, generations that do not come again. The checker's second half, beside `broker-oracle.ts`.
 */
interface Commits {
  /** Acknowledged: an answer to OffsetFetch is at least this. */
  acknowledged: number;
  sent: Set<number>;
}

export class GroupOracle {
  readonly #fail: (text: string) => void;
  readonly #commits = new Map<string, Commits>();
  /** By group, generation and life of the broker: a generation that nobody synced may come again after a crash. */
  readonly #leaders = new Map<string, string>();
  /** By group and generation: assignments that were handed out, by member. */
  readonly #assignments = new Map<string, Map<string, string>>();
  readonly #syncedGenerations = new Map<string, number>();
  acknowledgedCommits = 0;

  constructor(fail: (text: string) => void) {
    this.#fail = fail;
  }

  #commitsOf(group: string, topicId: string, partition: number): Commits {
    const key = `${group}|${topicId}|${partition}`;
    let commits = this.#commits.get(key);
    if (commits === undefined) this.#commits.set(key, (commits = { acknowledged: -1, sent: new Set() }));
    return commits;
  }

  committing(group: string, topicId: string, partition: number, offset: number): void {
    this.#commitsOf(group, topicId, partition).sent.add(offset);
  }
  committed(group: string, topicId: string, partition: number, offset: number): void {
    const commits = this.#commitsOf(group, topicId, partition);
    if (offset > commits.acknowledged) commits.acknowledged = offset;
    this.acknowledgedCommits++;
  }
  /** What an OffsetFetch that is sent now must answer at least. */
  acknowledged(group: string, topicId: string, partition: number): number {
    return this.#commitsOf(group, topicId, partition).acknowledged;
  }
  fetched(group: string, topicId: string, partition: number, offset: number, atLeast: number): void {
    const commits = this.#commitsOf(group, topicId, partition);
    const where = `group ${group}, topic ${topicId}, partition ${partition}`;
    if (offset < atLeast) this.#fail(`${where}: committed offset ${offset} after ${atLeast} was acknowledged`);
    if (offset >= 0 && !commits.sent.has(offset)) this.#fail(`${where}: committed offset ${offset}, which nobody sent`);
    // Who has read it relies on it.
    if (offset > commits.acknowledged) commits.acknowledged = offset;
  }

  /** The newest generation of which somebody has an assignment. */
  syncedGeneration(group: string): number {
    return this.#syncedGenerations.get(group) ?? 0;
  }
  joined(group: string, life: number, answer: { generation: number; leader: string }, atLeast: number): void {
    const { generation, leader } = answer;
    if (generation < atLeast) this.#fail(`group ${group}: generation ${generation} after ${atLeast}`);
    const key = `${group}|${generation}|${life}`;
    const known = this.#leaders.get(key);
    if (known === undefined) this.#leaders.set(key, leader);
    // A static member that came back leads under its new id.
    else if (known !== leader && !leader.startsWith('static')) {
      this.#fail(`group ${group}: generation ${generation} is led by ${known} and by ${leader}`);
    }
  }
  synced(group: string, generation: number, memberId: string, assigned: readonly string[]): void {
    const key = `${group}|${generation}`;
    let members = this.#assignments.get(key);
    if (members === undefined) this.#assignments.set(key, (members = new Map()));
    for (const partition of assigned) {
      const owner = members.get(partition);
      // Static members change their ids, not their assignments.
      if (owner !== undefined && owner !== memberId && !(owner.startsWith('static') && memberId.startsWith('static'))) {
        this.#fail(`group ${group}: generation ${generation} gives ${partition} to ${owner} and to ${memberId}`);
      }
      members.set(partition, memberId);
    }
    if (generation > this.syncedGeneration(group)) this.#syncedGenerations.set(group, generation);
  }

  /** See `LogOracle.forget`. */
  forget(): void {
    for (const commits of this.#commits.values()) commits.acknowledged = -1;
    this.#leaders.clear();
    this.#assignments.clear();
    this.#syncedGenerations.clear();
  }
}
