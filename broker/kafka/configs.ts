/**
 * DescribeConfigs (API 32), AlterConfigs (33), IncrementalAlterConfigs (44) and ListConfigResources (74).
 *
 * Topics, groups and this broker have configs; client metrics and loggers are not served. A resource is
 * changed as a whole or not at all, and its answer leaves when the change is durable. Permissions are those of Kafka's
 * "Operations and Protocols Authorization": DESCRIBE_CONFIGS or ALTER_CONFIGS, on the topic, the group or the cluster.
 */
import { errors, MillraceError } from '../../protocol/errors.ts';
import type {
  AlterConfigsRequest,
  AlterConfigsResponseInit,
  DescribeConfigsRequest,
  DescribeConfigsRequestResource,
  DescribeConfigsResponseInit,
  DescribeConfigsResponseResultInit,
  IncrementalAlterConfigsRequest,
  IncrementalAlterConfigsRequestConfig,
  IncrementalAlterConfigsResponseInit,
  ListConfigResourcesRequest,
  ListConfigResourcesResponseInit,
} from '../../protocol/kafka/messages.ts';
import type { Operation } from '../access.ts';
import type { Broker } from '../broker.ts';
import { options as optionTable, parseOption, type Option, type OptionName } from '../config.ts';
import { checkGroupConfigs, groupConfig } from '../group-configs.ts';
import type { ConfigValues, OptionScope } from '../metadata-state.ts';
import { checkTopicConfigs, listItems, topicConfig, topicConfigs, topicConfigValue } from '../topic-config.ts';
import { topicNameProblem } from '../topic-names.ts';
import type { Topic } from '../topics.ts';
import { CLUSTER, type Allowing } from './authorized-operations.ts';
import type { Call } from './call.ts';
import {
  describeBrokerConfigs,
  describeClusterConfigs,
  describeGroupConfigs,
  describeTopicConfigs,
  type ConfigEntry,
} from './config-entries.ts';
import { failureOf } from './failure.ts';
import { refuseInternal } from './topic-admin.ts';

/** `ConfigResource.Type` of Kafka. */
const TOPIC = 2;
const BROKER = 4;
const BROKER_LOGGER = 8;
const CLIENT_METRICS = 16;
const GROUP = 32;

const invalidRequest = (message: string): MillraceError => new MillraceError('INVALID_REQUEST', message);

interface Resource {
  readonly resourceType: number;
  readonly resourceName: string;
}

const ONCE = 'Each resource must appear at most once.';
const keyOf = ({ resourceType, resourceName }: Resource): string => `${resourceType} ${resourceName}`;

function authorize(call: Allowing, operation: Operation, { resourceType, resourceName }: Resource): void {
  if (resourceType === TOPIC) {
    if (!call.allows(operation, 'TOPIC', resourceName)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
  } else if (resourceType === GROUP) {
    if (!call.allows(operation, 'GROUP', resourceName)) throw new MillraceError('GROUP_AUTHORIZATION_FAILED');
  } else if (!call.allows(operation, 'CLUSTER', CLUSTER)) throw new MillraceError('CLUSTER_AUTHORIZATION_FAILED');
}

export function describeConfigs(broker: Broker, call: Call<DescribeConfigsRequest, DescribeConfigsResponseInit>): void {
  const { includeSynonyms, includeDocumentation } = call.request;
  const seen = new Set<string>();
  const results = call.request.resources.map((resource): DescribeConfigsResponseResultInit => {
    const { resourceType, resourceName, configurationKeys } = resource;
    try {
      // A few bytes must not ask for the same kilobytes again and again.
      if (seen.size === seen.add(keyOf(resource)).size) throw invalidRequest(ONCE);
      authorize(call, 'DESCRIBE_CONFIGS', resource);
      // An empty list of names means all of them, as null does.
      const keys = configurationKeys?.length ? new Set(configurationKeys) : undefined;
      const configs = entriesOf(broker, resource)
        .filter(({ name }) => keys === undefined || keys.has(name))
        .map((entry) => ({
          ...entry,
          synonyms: includeSynonyms ? entry.synonyms : [],
          documentation: includeDocumentation ? entry.documentation : null,
        }));
      return { errorCode: 0, errorMessage: '', resourceType, resourceName, configs };
    } catch (error) {
      return { ...failureOf(error), resourceType, resourceName, configs: [] };
    }
  });
  broker.topics.whenDurable(() => call.reply({ results }));
}

function entriesOf(broker: Broker, { resourceType, resourceName }: DescribeConfigsRequestResource): ConfigEntry[] {
  switch (resourceType) {
    case TOPIC: {
      const problem = topicNameProblem(resourceName);
      if (problem !== undefined) throw new MillraceError('INVALID_TOPIC_EXCEPTION', problem);
      const topic = broker.topics.get(resourceName);
      if (!topic) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', '');
      return describeTopicConfigs(broker, topic.overrides);
    }
    case BROKER:
      if (resourceName === '') return describeClusterConfigs(broker);
      checkNode(broker, resourceName, `${broker.options['node.id']} or empty string`, 'Broker');
      return describeBrokerConfigs(broker);
    case GROUP:
      if (resourceName === '') throw invalidRequest('Group name must not be empty');
      return describeGroupConfigs(broker, resourceName);
    case CLIENT_METRICS:
      if (resourceName === '') throw invalidRequest('Client metrics subscription name must not be empty');
      return [];
    case BROKER_LOGGER:
      throw invalidRequest('This broker has no loggers that can be set.');
    default:
      throw invalidRequest(`Unknown resource type ${resourceType}`);
  }
}

function checkNode(broker: Broker, text: string, expected: string, word: 'Broker' | 'Node'): void {
  if (!/^-?\d{1,10}$/.test(text)) throw invalidRequest(`${word} id must be an integer, but it is: ${text}`);
  if (Number(text) !== broker.options['node.id'])
    throw invalidRequest(`Unexpected broker id, expected ${expected}, but received ${text}`);
}

/** A change of one resource, decided but not made yet. */
type Change = () => void;
type NewValues = (before: ConfigValues) => Map<string, string>;

/** What IncrementalAlterConfigs and AlterConfigs share: which resource, whether it may be changed, into what. */
function alter(
  broker: Broker,
  call: Allowing,
  resources: readonly (Resource & { readonly configs: readonly { name: string; value: string | null }[] })[],
  options: { validateOnly: boolean; changed: (resource: Resource, index: number) => NewValues },
) {
  const counts = new Map<string, number>();
  for (const resource of resources) counts.set(keyOf(resource), (counts.get(keyOf(resource)) ?? 0) + 1);
  return resources.map((resource, index) => {
    const { resourceType, resourceName, configs } = resource;
    try {
      if ((counts.get(keyOf(resource)) ?? 0) > 1) throw invalidRequest(ONCE);
      authorize(call, 'ALTER_CONFIGS', resource);
      if (new Set(configs.map(({ name }) => name)).size < configs.length)
        throw invalidRequest('Error due to duplicate config keys');
      const change = decide(broker, resource, options.changed(resource, index));
      if (!options.validateOnly) change();
      return { errorCode: 0, errorMessage: null, resourceType, resourceName };
    } catch (error) {
      return { ...failureOf(error), resourceType, resourceName };
    }
  });
}

function decide(broker: Broker, { resourceType, resourceName }: Resource, changed: NewValues): Change {
  switch (resourceType) {
    case TOPIC: {
      const topic = alterableTopic(broker, resourceName);
      const overrides = checkTopicConfigs(changed(topic.overrides));
      return () => {
        if (!isSame(overrides, topic.overrides)) broker.topics.configure(topic, overrides);
      };
    }
    case BROKER: {
      const scope: OptionScope = resourceName === '' ? 'cluster' : 'node';
      if (scope === 'node') checkNode(broker, resourceName, String(broker.options['node.id']), 'Node');
      const before = broker.topics.dynamicOptions.dynamic(scope);
      const values = checkOptions(changed(before));
      return () => {
        if (!isSame(values, before)) broker.topics.configureOptions(scope, values);
      };
    }
    case GROUP: {
      if (resourceName === '') throw invalidRequest('Default group resources are not allowed.');
      const before = broker.topics.groupConfigs.valuesOf(resourceName);
      const values = checkGroupConfigs(changed(before), broker.options);
      return () => {
        if (!isSame(values, before)) broker.topics.configureGroup(resourceName, values);
      };
    }
    case CLIENT_METRICS:
      throw invalidRequest('This broker does not collect metrics from clients.');
    case BROKER_LOGGER:
      throw invalidRequest('This broker has no loggers that can be set.');
    default:
      throw invalidRequest(`Unknown resource type ${resourceType}`);
  }
}

function alterableTopic(broker: Broker, name: string): Topic {
  if (name === '') throw invalidRequest('Default topic resources are not allowed.');
  const problem = topicNameProblem(name);
  if (problem !== undefined) throw new MillraceError('INVALID_TOPIC_EXCEPTION', problem);
  const topic = broker.topics.get(name);
  if (!topic) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `The topic '${name}' does not exist.`);
  refuseInternal(topic);
  return topic;
}

function isSame(a: ConfigValues, b: ConfigValues): boolean {
  return a.size === b.size && [...a].every(([name, value]) => b.get(name) === value);
}

/** Values that may be changed while the broker runs, in canonical text. */
function checkOptions(values: ConfigValues): Map<string, string> {
  const isKnown = (name: string): boolean => Object.hasOwn(optionTable, name);
  const fixed = [...values.keys()].filter((name) => {
    // A key of the table, by the check before it.
    const option: Option | undefined = isKnown(name) ? optionTable[name as OptionName] : undefined;
    const isFact = Object.values(topicConfigs).some(({ synonym }) => synonym === name);
    return option === undefined ? isFact : option.isDynamic !== true;
  });
  if (fixed.length > 0) throw invalidRequest(`Cannot update these configs dynamically: [${fixed.join(', ')}]`);
  const checked = new Map<string, string>();
  for (const [name, value] of values) {
    if (!isKnown(name)) throw invalidRequest(`Unknown broker config name: ${name}`);
    try {
      checked.set(name, String(parseOption(name, value.trim())));
    } catch (error) {
      if (error instanceof MillraceError) throw invalidRequest(error.message);
      throw error;
    }
  }
  return checked;
}

/** Replaces everything a resource has of its own (deprecated by KIP-339, still sent by older tools). */
export function alterConfigs(broker: Broker, call: Call<AlterConfigsRequest, AlterConfigsResponseInit>): void {
  const { resources, validateOnly } = call.request;
  const changed = (_resource: Resource, index: number): NewValues => {
    return () => new Map(resources[index].configs.map(({ name, value }) => [name, present(name, value)]));
  };
  const responses = alter(broker, call, resources, { validateOnly, changed });
  broker.topics.whenDurable(() => call.reply({ responses }));
}

/** KIP-339. */
export function incrementalAlterConfigs(
  broker: Broker,
  call: Call<IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponseInit>,
): void {
  const { resources, validateOnly } = call.request;
  const changed = (resource: Resource, index: number): NewValues => {
    return (before) => {
      const values = new Map(before);
      for (const config of resources[index].configs) applyOperation(broker, resource, values, config);
      return values;
    };
  };
  const responses = alter(broker, call, resources, { validateOnly, changed });
  broker.topics.whenDurable(() => call.reply({ responses }));
}

/** `AlterConfigOp.OpType` of Kafka. */
const SET = 0;
const DELETE = 1;
const APPEND = 2;
const SUBTRACT = 3;

function applyOperation(
  broker: Broker,
  { resourceType }: Resource,
  values: Map<string, string>,
  { name, configOperation, value }: IncrementalAlterConfigsRequestConfig,
): void {
  switch (configOperation) {
    case SET:
      values.set(name, present(name, value));
      return;
    case DELETE:
      // Also of a name nobody knows: afterwards it is not set, as asked.
      values.delete(name);
      return;
    case APPEND:
    case SUBTRACT: {
      const items = listItems(present(name, value).trim());
      if (resourceType === TOPIC) topicConfig(name);
      else if (resourceType === GROUP) groupConfig(name);
      if (resourceType !== TOPIC || topicConfig(name).type !== 'list') {
        const verb = configOperation === APPEND ? 'APPEND' : 'SUBTRACT';
        throw new MillraceError('INVALID_CONFIG', `Can't ${verb} to key ${name} because its type is not LIST.`);
      }
      const before = listItems(topicConfigValue(name, values, broker.options));
      const after =
        configOperation === APPEND
          ? [...before, ...items.filter((item) => !before.includes(item))]
          : before.filter((item) => !items.includes(item));
      values.set(name, after.join(','));
      return;
    }
    default:
      throw invalidRequest(`Unknown config operation ${configOperation}`);
  }
}

function present(name: string, value: string | null): string {
  if (value === null) throw invalidRequest(`Null value not supported for : ${name}`);
  return value;
}

/** KIP-1142; version 0 (KIP-714) knows client metrics only. */
export function listConfigResources(
  broker: Broker,
  call: Call<ListConfigResourcesRequest, ListConfigResourcesResponseInit>,
): void {
  if (!call.allows('DESCRIBE_CONFIGS', 'CLUSTER', CLUSTER))
    return call.reply({ errorCode: errors.CLUSTER_AUTHORIZATION_FAILED.kafka, configResources: [] });
  const served = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
  const asked = call.version === 0 ? [CLIENT_METRICS] : call.request.resourceTypes;
  if (asked.some((type) => !served.includes(type)))
    return call.reply({ errorCode: errors.UNSUPPORTED_VERSION.kafka, configResources: [] });
  const types = new Set(asked.length === 0 ? served : asked);
  const configResources: { resourceName: string; resourceType: number }[] = [];
  if (types.has(BROKER))
    configResources.push({ resourceName: String(broker.options['node.id']), resourceType: BROKER });
  if (types.has(TOPIC)) {
    for (const { name } of broker.topics) configResources.push({ resourceName: name, resourceType: TOPIC });
  }
  if (types.has(GROUP)) {
    for (const name of broker.topics.groupConfigs.groupIds())
      configResources.push({ resourceName: name, resourceType: GROUP });
  }
  broker.topics.whenDurable(() => call.reply({ errorCode: 0, configResources }));
}
