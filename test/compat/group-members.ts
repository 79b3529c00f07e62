/**
 * Members of one group in several JVMs (`java/GroupMembers.java`) that are started, leave, are dropped or killed, and what
 * must hold of them: every record handled, none handled after it was committed, and after a change every partition
 * with exactly one member.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { projectRoot } from './java-tools.ts';

export interface GroupSetting {
  readonly jars: string;
  readonly bootstrap: string;
  readonly topic: string;
  readonly group: string;
  readonly partitionCount: number;
}

interface Handled {
  readonly member: string;
  readonly partition: number;
  readonly first: number;
  readonly last: number;
  readonly atNs: bigint;
}
interface Committed {
  readonly member: string;
  readonly partition: number;
  readonly offset: number;
  readonly atNs: bigint;
}

export class GroupMembers {
  readonly #setting: GroupSetting;
  readonly #hosts = new Map<string, ChildProcess>();
  /** Member → its JVM. */
  readonly #places = new Map<string, string>();
  readonly #assigned = new Map<string, number[]>();
  readonly #handled: Handled[] = [];
  readonly #committed: Committed[] = [];
  readonly #ends = new Map<number, number>();
  /** What went wrong in a member or the producer. */
  readonly failures: string[] = [];
  /** Commits that were refused: whoever has the partition next handles the records again. */
  refusedCommits = 0;
  #waiting: (() => void)[] = [];
  #isHalted = false;
  #isCreated = false;

  constructor(setting: GroupSetting) {
    this.#setting = setting;
  }

  /** Starts a JVM for members. */
  async open(host: string): Promise<void> {
    const { jars, bootstrap, topic, group } = this.#setting;
    const root = projectRoot();
    const child = spawn(
      'java',
      [
        '-Xmx256M',
        '-XX:TieredStopAtLevel=1',
        '-XX:+UseSerialGC',
        `-Dlog4j2.configurationFile=${join(root, 'bench/peers/kafka/log4j2.properties')}`,
        '-cp',
        `${jars}/*`,
        join(root, 'test/compat/java/GroupMembers.java'),
        bootstrap,
        topic,
        group,
      ],
      { stdio: ['pipe', 'pipe', 'pipe'] },
    );
    this.#hosts.set(host, child);
    const ready = new Promise<void>((resolve, reject) => {
      let words = '';
      child.stderr.on('data', (chunk: Buffer) => {
        words = (words + chunk).slice(-4000);
      });
      child.once('exit', (code) => reject(new Error(`the JVM of the members ended with ${code}:\n${words}`)));
      createInterface(child.stdout).on('line', (line) => {
        if (line === 'ready') resolve();
        else this.#hear(line);
      });
    });
    ready.catch(() => {});
    await ready;
  }

  start(host: string, member: string, protocol: 'classic' | 'consumer', assignor = '-', instanceId = ''): void {
    this.#places.set(member, host);
    this.#say(host, `start ${member} ${protocol} ${assignor} ${instanceId}`.trim());
  }
  leave(member: string): void {
    this.#end(member, 'leave');
  }
  /** It ends without a goodbye: the group learns of it by its silence. */
  drop(member: string): void {
    this.#end(member, 'drop');
  }
  #end(member: string, how: 'leave' | 'drop'): void {
    const host = this.#places.get(member);
    if (host === undefined) throw new Error(`no member ${member}`);
    this.#places.delete(member);
    this.#say(host, `${how} ${member}`);
  }

  /** kill -9 of a JVM and all members in it. */
  async kill(host: string): Promise<void> {
    const child = this.#hosts.get(host);
    if (child === undefined) throw new Error(`no JVM ${host}`);
    this.#hosts.delete(host);
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
    for (const [member, place] of this.#places) {
      if (place !== host) continue;
      this.#places.delete(member);
      this.#assigned.delete(member);
    }
  }

  /** Makes the topic. */
  async create(host: string): Promise<void> {
    this.#say(host, `create ${this.#setting.partitionCount}`);
    await this.until('the topic is there', () => this.#isCreated, 30_000);
  }
  produce(host: string, perSecond: number): void {
    this.#say(host, `produce ${perSecond}`);
  }
  async halt(host: string): Promise<void> {
    this.#say(host, 'halt');
    await this.until('the producer ends', () => this.#isHalted, 30_000);
  }

  /** Members that are there, in the order in which they were started. */
  get names(): string[] {
    return [...this.#places.keys()];
  }
  get handledCount(): number {
    return this.#handled.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  }

  /** Resolves when every partition has one member, every member that is there its part, and nobody else anything. */
  async balanced(limitMs: number): Promise<void> {
    const { partitionCount } = this.#setting;
    const isBalanced = (): boolean => {
      const held: number[] = [];
      for (const [member, partitions] of this.#assigned) {
        if (!this.#places.has(member) && partitions.length > 0) return false;
        held.push(...partitions);
      }
      if (held.length !== partitionCount || new Set(held).size !== partitionCount) return false;
      const fair = Math.floor(partitionCount / this.#places.size);
      return [...this.#places.keys()].every((member) => (this.#assigned.get(member)?.length ?? 0) >= fair);
    };
    await this.until('partitions are shared', isBalanced, limitMs);
  }

  /** Resolves when all that was produced has been handled and committed. */
  async drained(limitMs: number): Promise<void> {
    const isDrained = (): boolean =>
      [...this.#ends].every(([partition, end]) =>
        this.#committed.some((commit) => commit.partition === partition && commit.offset >= end),
      );
    await this.until('everything is committed', isDrained, limitMs);
  }

  async until(what: string, holds: () => boolean, limitMs: number): Promise<void> {
    const late = setTimeout(() => {
      for (const wake of this.#waiting.splice(0)) wake();
    }, limitMs);
    const endNs = process.hrtime.bigint() + BigInt(limitMs) * 1_000_000n;
    try {
      while (!holds()) {
        if (process.hrtime.bigint() >= endNs) {
          const shares = [...this.#assigned].map(([member, partitions]) => `${member}: ${partitions}`);
          throw new Error(`not within ${limitMs} ms: ${what}\n${shares.join('\n')}\n${this.failures.join('\n')}`);
        }
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
      }
    } finally {
      clearTimeout(late);
    }
  }

  /** Records that nobody handled, and those that somebody handled after they were committed. */
  problems(): string[] {
    const problems: string[] = [];
    for (const [partition, end] of this.#ends) {
      const handled = this.#handled.filter((one) => one.partition === partition);
      let next = 0;
      for (const { first, last } of handled.toSorted((a, b) => a.first - b.first)) {
        if (first > next) problems.push(`${partition}: ${next} to ${first - 1} were handled by nobody`);
        next = Math.max(next, last + 1);
      }
      if (next < end) problems.push(`${partition}: ${next} to ${end - 1} were handled by nobody`);
      const commits = this.#committed
        .filter((one) => one.partition === partition)
        .toSorted((a, b) => (a.atNs < b.atNs ? -1 : 1));
      for (const { member, first, atNs } of handled) {
        const earlier = commits.findLast((commit) => commit.atNs < atNs && commit.offset > first);
        if (earlier === undefined) continue;
        const afterMs = Number(atNs - earlier.atNs) / 1e6;
        problems.push(
          `${partition}: ${member} handled ${first} ${afterMs} ms after ${earlier.member} committed ${earlier.offset}`,
        );
      }
    }
    return problems;
  }

  async close(): Promise<void> {
    const all = [...this.#hosts.values()].filter(
      ({ exitCode, signalCode }) => exitCode === null && signalCode === null,
    );
    await Promise.all(
      all.map(async (child) => {
        const ended = once(child, 'exit');
        child.kill('SIGKILL');
        await ended;
      }),
    );
  }

  #say(host: string, line: string): void {
    this.#hosts.get(host)?.stdin?.write(`${line}\n`);
  }

  #hear(line: string): void {
    const [kind, name, ...rest] = line.split(' ');
    switch (kind) {
      case 'h': {
        const [partition, first, last] = rest.map(Number);
        this.#handled.push({ member: name, partition, first, last, atNs: BigInt(rest[3]) });
        break;
      }
      case 'c': {
        const [partition, offset] = rest.map(Number);
        this.#committed.push({ member: name, partition, offset, atNs: BigInt(rest[2]) });
        break;
      }
      case 'a':
        this.#assigned.set(name, rest[0] ? rest[0].split(',').map(Number) : []);
        break;
      case 'p':
        this.#ends.set(Number(name), Number(rest[0]));
        break;
      case 'x':
        this.refusedCommits++;
        break;
      case 'e':
        this.failures.push(line);
        break;
      case 'created':
        this.#isCreated = true;
        break;
      case 'halted':
        this.#isHalted = true;
        break;
    }
    for (const wake of this.#waiting.splice(0)) wake();
  }
}
