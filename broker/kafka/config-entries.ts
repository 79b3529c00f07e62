/**
 * Configs as Kafka's admin APIs show them: every value with its source, and the chain of values behind it (synonyms,
 * KIP-226). Topics show `topicConfigs`, groups `groupConfigs`; a broker shows the option table and, read-only, the facts that topics take from it.
 */
import type { DescribeConfigsResponseConfigInit } from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import { options as optionTable, type Option, type OptionName } from '../config.ts';
import type { OptionSource } from '../dynamic-options.ts';
import { type GroupConfig, groupConfigs, groupConfigValue } from '../group-configs.ts';
import type { ConfigValues } from '../metadata-state.ts';
import { optionBehind, optionText, topicConfigs, type ConfigType } from '../topic-config.ts';

/** `ConfigSource` of Kafka's DescribeConfigs. */
const SOURCES: Readonly<Record<OptionSource | 'TOPIC_CONFIG' | 'GROUP_CONFIG', number>> = {
  TOPIC_CONFIG: 1,
  GROUP_CONFIG: 8,
  DYNAMIC_BROKER_CONFIG: 2,
  DYNAMIC_DEFAULT_BROKER_CONFIG: 3,
  STATIC_BROKER_CONFIG: 4,
  DEFAULT_CONFIG: 5,
};
/** `ConfigType` of Kafka's DescribeConfigs. */
const TYPES: Readonly<Record<ConfigType, number>> = { boolean: 1, string: 2, int: 3, long: 5, double: 6, list: 7 };
const INT32_MAX = 2_147_483_647;

export interface ConfigEntry extends DescribeConfigsResponseConfigInit {
  readonly configSource: number;
  readonly synonyms: readonly Synonym[];
  readonly configType: number;
  readonly documentation: string;
}

interface Synonym {
  readonly name: string;
  readonly value: string;
  readonly source: number;
}

interface Shown {
  readonly name: string;
  readonly type: ConfigType;
  readonly readOnly: boolean;
  readonly documentation: string;
  /** The value in force first; empty if Kafka shows none, `value` is then the default. */
  readonly chain: readonly Synonym[];
  readonly value: string;
}

function entry({ name, type, readOnly, documentation, chain, value }: Shown): ConfigEntry {
  return {
    name,
    value: chain[0]?.value ?? value,
    readOnly,
    configSource: chain[0]?.source ?? SOURCES.DEFAULT_CONFIG,
    isSensitive: false,
    synonyms: chain,
    configType: TYPES[type],
    documentation,
  };
}

const optionChain = (broker: Broker, option: OptionName): Synonym[] =>
  broker.topics.dynamicOptions
    .chain(option)
    .map(({ value, source }) => ({ name: option, value: optionText(value), source: SOURCES[source] }));

/** Every topic config, for a topic that has these values of its own. */
export function describeTopicConfigs(broker: Broker, overrides: ConfigValues): ConfigEntry[] {
  return Object.entries(topicConfigs).map(([name, config]) => {
    const chain: Synonym[] = [];
    const own = overrides.get(name);
    if (own !== undefined) chain.push({ name, value: own, source: SOURCES.TOPIC_CONFIG });
    const option = optionBehind(config);
    if (option !== undefined) chain.push(...optionChain(broker, option));
    else if (config.synonym !== undefined)
      chain.push({ name: config.synonym, value: config.default, source: SOURCES.DEFAULT_CONFIG });
    return entry({
      name,
      type: config.type,
      readOnly: false,
      documentation: config.documentation,
      chain,
      value: config.default,
    });
  });
}

/** Every config of a group, whether the group exists or not. */
export function describeGroupConfigs(broker: Broker, groupId: string): ConfigEntry[] {
  const own = broker.topics.groupConfigs.valuesOf(groupId);
  return Object.entries(groupConfigs).map(([name, row]) => {
    const config: GroupConfig = row;
    const chain: Synonym[] = [];
    if (own.has(name)) {
      const value = groupConfigValue(name, own, broker.options);
      chain.push({ name, value, source: SOURCES.GROUP_CONFIG });
    }
    if (config.type === 'int') chain.push(...optionChain(broker, config.synonym));
    else chain.push({ name, value: config.default, source: SOURCES.DEFAULT_CONFIG });
    return entry({
      name,
      type: config.type,
      readOnly: false,
      documentation: config.documentation,
      chain,
      value: chain[0].value,
    });
  });
}

function optionType(option: Option): ConfigType {
  switch (option.type) {
    case 'number':
      return option.max <= INT32_MAX ? 'int' : 'long';
    case 'boolean':
      return 'boolean';
    case 'string':
      return 'string';
  }
}

/** Every option of this node. */
export function describeBrokerConfigs(broker: Broker): ConfigEntry[] {
  // The keys of the table are its names.
  const names = Object.keys(optionTable) as OptionName[];
  const own = names.map((name) => {
    const option: Option = optionTable[name];
    return entry({
      name,
      type: optionType(option),
      readOnly: option.isDynamic !== true,
      documentation: option.reason,
      chain: optionChain(broker, name),
      value: String(option.default),
    });
  });
  const facts = Object.values(topicConfigs).flatMap((config) => {
    if (config.synonym === undefined || optionBehind(config) !== undefined) return [];
    const chain = [{ name: config.synonym, value: config.default, source: SOURCES.DEFAULT_CONFIG }];
    const { type, documentation, default: value } = config;
    return [entry({ name: config.synonym, type, readOnly: true, documentation, chain, value })];
  });
  return [...own, ...facts].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** What is dynamic for all nodes: the resource BROKER with an empty name. */
export function describeClusterConfigs(broker: Broker): ConfigEntry[] {
  const values = broker.topics.dynamicOptions.dynamic('cluster');
  return describeBrokerConfigs(broker).flatMap((described) => {
    const value = values.get(described.name);
    if (value === undefined) return [];
    const source = SOURCES.DYNAMIC_DEFAULT_BROKER_CONFIG;
    return [{ ...described, value, configSource: source, synonyms: [{ name: described.name, value, source }] }];
  });
}
