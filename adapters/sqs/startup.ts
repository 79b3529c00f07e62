/**
 * Queues that are to be there at the start, out of a file of one of three kinds: a list of ours in YAML, the `queues` section of
 * ElasticMQ's configuration (HOCON), or the `AWS::SQS::Queue` resources of a CloudFormation template (YAML or JSON). Pure.
 *
 *   queues:
 *     - name: orders
 *       attributes: { VisibilityTimeout: 60, RedrivePolicy: { deadLetterTargetArn: …, maxReceiveCount: 5 } }
 *       tags: { team: shop }
 */
import { parse } from 'yaml';
import { MillraceError } from '../../protocol/errors.ts';
import { FIFO_SUFFIX } from '../../protocol/sqs/text.ts';
import { arnOf } from './addresses.ts';
import { type HoconObject, parseHocon } from './hocon.ts';

/** A queue as CreateQueue has it. */
export interface WantedQueue {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly tags: ReadonlyMap<string, string>;
}

type Mapping = Readonly<Record<string, unknown>>;

const isMapping = (value: unknown): value is Mapping =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** `place` is where dead-letter queues that are only named are. INVALID_OPTION says what is wrong in which file. */
export function wantedQueues(
  text: string,
  fileName: string,
  place: { readonly region: string; readonly account: string },
): WantedQueue[] {
  const wrong = (what: string, cause?: unknown): MillraceError =>
    new MillraceError('INVALID_OPTION', `${fileName}: ${what}`, { cause });
  try {
    if (/\.(conf|hocon)$/.test(fileName)) return ofElasticMq(parseHocon(text), place);
    const content: unknown = parse(text, { customTags: CLOUD_FORMATION_TAGS });
    if (isMapping(content) && isMapping(content['Resources'])) return ofTemplate(content, place);
    if (isMapping(content) && Array.isArray(content['queues'])) return content['queues'].map(ofList);
  } catch (error) {
    throw wrong(error instanceof Error ? error.message.split('\n')[0] : String(error), error);
  }
  throw wrong("neither a list 'queues', nor a template with 'Resources', nor named *.conf");
}

function ofList(entry: unknown, index: number): WantedQueue {
  if (!isMapping(entry) || typeof entry['name'] !== 'string') throw new Error(`queue ${index + 1} has no name`);
  const { name, attributes = {}, tags = {}, ...rest } = entry;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw new Error(`queue '${name}': '${unknown}' is not understood`);
  return { name, attributes: fifo(name, texts(attributes)), tags: texts(tags) };
}

/** Values as CreateQueue takes them: objects as JSON. */
function texts(values: unknown): Map<string, string> {
  if (!isMapping(values)) throw new Error('a mapping was expected');
  return new Map(
    Object.entries(values).map(([key, value]) => [
      key,
      typeof value === 'object' ? JSON.stringify(value) : String(value),
    ]),
  );
}

function fifo(name: string, attributes: Map<string, string>): Map<string, string> {
  if (name.endsWith(FIFO_SUFFIX)) attributes.set('FifoQueue', 'true');
  else attributes.delete('FifoQueue');
  return attributes;
}

// --- ElasticMQ ---

const MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

function seconds(text: string): string {
  const [, number, unit = 'ms'] = /^(\d+)\s*(?:(ms|mi?l?l?i?s?e?c?o?n?d?s?|s|m|h|d)[a-z]*)?$/i.exec(text.trim()) ?? [];
  if (number === undefined) throw new Error(`'${text}' is no duration`);
  const key = /^milli|^ms/i.test(unit) ? 'ms' : unit[0].toLowerCase();
  return String(Math.floor((Number(number) * MS[key]) / 1000));
}

function ofElasticMq(content: HoconObject, place: { region: string; account: string }): WantedQueue[] {
  const queues = content.get('queues');
  if (!(queues instanceof Map)) throw new Error("there is no section 'queues'");
  return [...queues].map(([key, value]) => {
    const section: HoconObject = value instanceof Map ? value : new Map();
    const text = (name: string): string | undefined => {
      const found = section.get(name);
      return typeof found === 'string' ? found : undefined;
    };
    const isFifo = text('fifo') === 'true' || key.endsWith(FIFO_SUFFIX);
    const name = isFifo && !key.endsWith(FIFO_SUFFIX) ? `${key}${FIFO_SUFFIX}` : key;
    const attributes = new Map<string, string>();
    for (const [own, attribute] of [
      ['defaultVisibilityTimeout', 'VisibilityTimeout'],
      ['delay', 'DelaySeconds'],
      ['receiveMessageWait', 'ReceiveMessageWaitTimeSeconds'],
    ] as const) {
      const duration = text(own);
      if (duration !== undefined) attributes.set(attribute, seconds(duration));
    }
    if (isFifo && text('contentBasedDeduplication') === 'true') attributes.set('ContentBasedDeduplication', 'true');
    const dead = section.get('deadLettersQueue');
    if (dead instanceof Map) {
      const deadLetterTargetArn = arnOf(String(dead.get('name')), place.region, place.account);
      const maxReceiveCount = Number(dead.get('maxReceiveCount'));
      attributes.set('RedrivePolicy', JSON.stringify({ deadLetterTargetArn, maxReceiveCount }));
    }
    const tags = section.get('tags');
    const pairs = tags instanceof Map ? [...tags].map(([tag, each]): [string, string] => [tag, String(each)]) : [];
    return { name, attributes: fifo(name, attributes), tags: new Map(pairs) };
  });
}

// --- CloudFormation ---

/** Short forms of functions, which only its YAML has. */
const CLOUD_FORMATION_TAGS = ['Ref', 'GetAtt', 'Sub'].flatMap((name) => {
  const key = name === 'Ref' ? 'Ref' : `Fn::${name}`;
  const scalar = {
    tag: `!${name}`,
    resolve: (text: string) => ({ [key]: name === 'GetAtt' ? text.split('.') : text }),
  };
  return [scalar];
});

function ofTemplate(template: Mapping, place: { region: string; account: string }): WantedQueue[] {
  // A mapping, by the caller's check.
  const resources = template['Resources'] as Mapping;
  const parameters = isMapping(template['Parameters']) ? template['Parameters'] : {};
  const values = new Map<string, string>([
    ['AWS::Region', place.region],
    ['AWS::AccountId', place.account],
    ['AWS::Partition', 'aws'],
    ['AWS::StackName', 'millrace'],
  ]);
  for (const [name, parameter] of Object.entries(parameters)) {
    if (isMapping(parameter) && parameter['Default'] !== undefined) values.set(name, String(parameter['Default']));
  }
  const queues = Object.entries(resources).filter(
    ([, resource]) => isMapping(resource) && resource['Type'] === 'AWS::SQS::Queue',
  );
  const propertiesOf = (resource: unknown): Mapping => {
    const properties = isMapping(resource) ? resource['Properties'] : undefined;
    return isMapping(properties) ? properties : {};
  };
  const names = new Map<string, string>();
  const resolve = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(resolve);
    if (!isMapping(value)) return value;
    if (typeof value['Ref'] === 'string') return values.get(value['Ref']) ?? names.get(value['Ref']) ?? value['Ref'];
    const attribute = value['Fn::GetAtt'];
    if (Array.isArray(attribute)) return arnOf(names.get(String(attribute[0])) ?? '', place.region, place.account);
    const pattern = value['Fn::Sub'];
    if (typeof pattern === 'string') {
      return pattern.replace(/\$\{([\w:.]+)\}/g, (_, name: string) => {
        const [resource, what] = name.split('.');
        if (what === 'Arn' && names.has(resource)) return String(resolve({ 'Fn::GetAtt': [resource, what] }));
        return values.get(name) ?? names.get(name) ?? '';
      });
    }
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, resolve(each)]));
  };
  for (const [id, resource] of queues) {
    const properties = propertiesOf(resource);
    const suffix = String(properties['FifoQueue']) === 'true' ? FIFO_SUFFIX : '';
    names.set(id, String(resolve(properties['QueueName'] ?? `${id}${suffix}`)));
  }
  return queues.map(([id, resource]) => {
    const { QueueName: _, Tags: tags = [], ...attributes } = propertiesOf(resource);
    const name = names.get(id) ?? id;
    const pairs = Array.isArray(tags) ? tags.filter(isMapping) : [];
    return {
      name,
      attributes: fifo(name, texts(resolve(attributes))),
      tags: new Map(pairs.map(({ Key, Value }) => [String(Key), String(resolve(Value))])),
    };
  });
}
