/**
 * The vhosts of the door: those that the directory names, each with what the log (`__millrace_amqp`, shown to nobody) has
 * of it. One that goes takes everything in it along; what a crash left behind of it goes at the next start.
 */
import assert from 'node:assert/strict';
import type { Change } from '../../broker/directory-state.ts';
import type { Options } from '../../broker/config.ts';
import type { Engine } from '../../broker/engine.ts';
import type { Queue } from '../../broker/queues.ts';
import { StateLog } from '../../broker/state-log.ts';
import { stateLogConfig } from '../../broker/topics.ts';
import { DEFAULT_VHOST } from './queue-names.ts';
import { Topology, type TopologyChange, type TopologyEvent } from './topology.ts';
import { Vhost, type VhostParts } from './vhost.ts';

const TOPIC = '__millrace_amqp';
const TOPIC_ID = '00000000-0000-0000-0000-000000000004';

export interface VhostsParts extends Omit<VhostParts, 'vhostOf'> {
  readonly engine: Engine;
  readonly options: Options;
}

export class Vhosts {
  readonly #parts: VhostsParts;
  readonly #topology = new Topology();
  readonly #log: StateLog<TopologyEvent>;
  readonly #vhosts = new Map<string, Vhost>();
  readonly #vhostOf = new WeakMap<Queue, Vhost>();
  readonly #deletedCallbacks: ((name: string) => void)[] = [];

  constructor(parts: VhostsParts) {
    this.#parts = parts;
    const partition = parts.engine.openPartition({ topicId: TOPIC_ID, topic: TOPIC, index: 0, config: stateLogConfig });
    const commitBytesMax = Math.floor(parts.options['journal.entry.bytes'] / 2);
    this.#log = new StateLog(parts.engine, partition, this.#topology, parts.clock, commitBytesMax);
  }

  /** Once, after the queues are loaded. */
  async load(): Promise<void> {
    await this.#log.load();
    const { directory, topics } = this.#parts;
    const known = new Set(directory.vhosts.list().map(({ name }) => name));
    // Its own queues are not those of '/', which looks at what nobody else has.
    const names = [...this.#topology.vhosts, ...known].filter((name) => name !== DEFAULT_VHOST);
    for (const name of new Set(names)) this.#open(name);
    this.#open(DEFAULT_VHOST);
    for (const name of [...this.#vhosts.keys()]) if (!known.has(name)) this.#close(name);
    directory.watch((changes) => this.#changed(changes));
    topics.watch({
      deleted: ({ name }) => {
        for (const vhost of this.#vhosts.values()) vhost.topicDeleted(name);
      },
      partitionsAdded: () => {},
    });
  }

  get(name: string): Vhost | undefined {
    return this.#vhosts.get(name);
  }
  get all(): ReadonlyMap<string, Vhost> {
    return this.#vhosts;
  }
  close(): void {
    for (const vhost of this.#vhosts.values()) vhost.stop();
  }

  /** The vhost of a queue. */
  of(queue: Queue): Vhost {
    const vhost = this.#vhostOf.get(queue) ?? this.#vhosts.get(DEFAULT_VHOST);
    assert(vhost !== undefined, "the vhost '/' is always there");
    return vhost;
  }
  /** Called with the name of a vhost that is gone, in the turn in which it goes. */
  onDeleted(callback: (name: string) => void): void {
    this.#deletedCallbacks.push(callback);
  }

  #open(name: string): void {
    const kept = this.#topology.of(name);
    const named = (changes: readonly TopologyChange[]): TopologyEvent[] =>
      changes.map((change) => ({ ...change, vhost: name }));
    const store = {
      kept,
      commit: (changes: readonly TopologyChange[]): void => void this.#log.commit(named(changes)),
      part: (changes: readonly TopologyChange[]) => this.#log.part(named(changes)),
      whenDurable: (callback: () => void): void => this.#log.whenDurable(callback),
    };
    const vhost = new Vhost(name, store, { ...this.#parts, vhostOf: this.#vhostOf });
    this.#vhosts.set(name, vhost);
    vhost.load();
  }

  #close(name: string): void {
    const vhost = this.#vhosts.get(name);
    if (vhost === undefined) return;
    for (const callback of this.#deletedCallbacks) callback(name);
    vhost.end();
    this.#vhosts.delete(name);
    this.#topology.forget(name);
  }

  #changed(changes: readonly Change[]): void {
    const touched = new Set<string>();
    for (const { table, key, fact } of changes) {
      if (table === 'vhosts') {
        if (fact === undefined) this.#close(key);
        else if (!this.#vhosts.has(key)) this.#open(key);
      } else if (table === 'policies' || table === 'operatorPolicies') touched.add(vhostOfPolicy(key));
    }
    for (const name of touched) this.#vhosts.get(name)?.applyPolicies();
  }
}

/** The keys of policies begin with their vhost. */
const vhostOfPolicy = (key: string): string => key.slice(0, key.indexOf('\0'));
