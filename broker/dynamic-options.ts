/**
 * Options with what was changed while running laid over them, in Kafka's order: this node's dynamic value, the
 * cluster's, what the broker was started with, the default. `options` is changed in place, so that everybody who holds
 * it sees the value in force.
 */
import { options as table, parseOption, type OptionName, type Options } from './config.ts';
import type { ConfigValues, OptionScope } from './metadata-state.ts';

/** Where a value comes from; Kafka's names for it. */
export type OptionSource =
  | 'DYNAMIC_BROKER_CONFIG'
  | 'DYNAMIC_DEFAULT_BROKER_CONFIG'
  | 'STATIC_BROKER_CONFIG'
  | 'DEFAULT_CONFIG';

export interface OptionValue {
  readonly value: string | number | boolean;
  readonly source: OptionSource;
}

export class DynamicOptions {
  readonly options: Options;
  /** As the broker was started. */
  readonly #started: Options;
  readonly #dynamic: Record<OptionScope, ConfigValues> = { node: new Map(), cluster: new Map() };

  constructor(options: Options) {
    this.options = options;
    this.#started = { ...options };
  }

  /** Replaces everything that is dynamic in a scope. The values were checked when they were set. */
  set(scope: OptionScope, values: ConfigValues): void {
    const before = this.#dynamic[scope];
    this.#dynamic[scope] = values;
    for (const name of new Set([...before.keys(), ...values.keys()])) {
      // A stored name may be gone in this version: it is kept in the log, but means nothing.
      if (!Object.hasOwn(table, name)) continue;
      const [inForce] = this.chain(name as OptionName);
      // The table gives the key its type; one assignment cannot know that.
      (this.options as Record<string, string | number | boolean>)[name] = inForce.value;
    }
  }

  /** Every value the option has, the one in force first. */
  chain(name: OptionName): OptionValue[] {
    const values: OptionValue[] = [];
    const node = this.#dynamic.node.get(name);
    const cluster = this.#dynamic.cluster.get(name);
    if (node !== undefined) values.push({ value: parseOption(name, node), source: 'DYNAMIC_BROKER_CONFIG' });
    if (cluster !== undefined)
      values.push({ value: parseOption(name, cluster), source: 'DYNAMIC_DEFAULT_BROKER_CONFIG' });
    if (this.#started[name] !== table[name].default)
      values.push({ value: this.#started[name], source: 'STATIC_BROKER_CONFIG' });
    values.push({ value: table[name].default, source: 'DEFAULT_CONFIG' });
    return values;
  }

  dynamic(scope: OptionScope): ConfigValues {
    return this.#dynamic[scope];
  }
}
