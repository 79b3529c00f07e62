/**
 * Compares every definition with the schema that Kafka ships in its jars, field by field. Where there are no jars it says
 * so and compares nothing: the golden vectors cover the same ground, only less directly.
 */
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import test from 'ava';
import type { Field, Message, Versions } from '../../../protocol/kafka/definition.ts';
import { OWN_TAGS_MIN, readDefinitions } from './vectors.ts';
import { unzip } from './zip.ts';

const VERSION = '4.4.0';

interface SchemaField {
  name: string;
  type: string;
  versions: string;
  nullableVersions?: string;
  taggedVersions?: string;
  flexibleVersions?: string;
  tag?: number;
  ignorable?: boolean;
  default?: unknown;
  fields?: SchemaField[];
}

interface Schema {
  apiKey?: number;
  name: string;
  type: string;
  validVersions: string;
  flexibleVersions: string;
  latestVersionUnstable?: boolean;
  fields: SchemaField[];
  commonStructs?: SchemaField[];
}

/** Where a jar of Kafka's may be: beside the one the environment names, in Maven's repository, where the bench keeps its peer. */
function findJar(artifact: string): string | undefined {
  const file = `${artifact}-${VERSION}.jar`;
  const named = process.env.MILLRACE_KAFKA_CLIENTS_JAR;
  const candidates = [
    ...(named === undefined ? [] : artifact === 'kafka-clients' ? [named] : [join(dirname(named), file)]),
    join(homedir(), '.m2/repository/org/apache/kafka', artifact, VERSION, file),
    join(homedir(), `.cache/millrace-peers/kafka/broker-${VERSION}`, file),
  ];
  return candidates.find((path) => existsSync(path));
}

function readSchemas(): Map<string, Schema> {
  const schemas = new Map<string, Schema>();
  for (const artifact of ['kafka-clients', 'kafka-group-coordinator']) {
    const jar = findJar(artifact);
    if (jar === undefined) continue;
    const files = unzip(readFileSync(jar), (name) => /^common\/message\/\w+\.json$/.test(name));
    for (const content of files.values()) {
      const schema: Schema = JSON.parse(content.toString().replaceAll(/^\s*\/\/.*$/gm, ''));
      schemas.set(schema.name, schema);
    }
  }
  return schemas;
}

const schemas = readSchemas();
const definitions = readDefinitions();

/** `3`, `3-5`, `3+` or `none`, within `scope`; null: nowhere. */
function within(text: string | undefined, scope: Versions): Versions | null {
  const match = /^(\d+)(?:(\+)|-(\d+))?$/.exec(text ?? 'none');
  if (match === null) return null;
  const first = Math.max(Number(match[1]), scope.first);
  const upTo = match[2] === '+' ? scope.last : Number(match[3] ?? match[1]);
  const last = Math.min(upTo, scope.last);
  return first > last ? null : { first, last };
}

/** One line a field: everything that decides about its bytes. */
function describeSchema(
  fields: readonly SchemaField[],
  scope: Versions,
  common: readonly SchemaField[],
  path = '',
): string[] {
  return fields.flatMap((field) => {
    const versions = within(field.versions, scope);
    if (versions === null) return [];
    const name = `${path}${field.name[0].toLowerCase()}${field.name.slice(1)}`;
    const isArray = field.type.startsWith('[]');
    const element = isArray ? field.type.slice(2) : field.type;
    const isStructure = /^[A-Z]/.test(element);
    const children = field.fields ?? common.find((one) => one.name === element)?.fields ?? [];
    const line = describe({
      name,
      type: (isArray ? '[]' : '') + (isStructure ? 'struct' : element),
      versions,
      nullable: within(field.nullableVersions, versions),
      tag: within(field.taggedVersions, versions) === null ? null : (field.tag ?? null),
      isIgnorable: field.ignorable ?? false,
      isPlain: field.flexibleVersions === 'none',
      // A null that is not the text "null" is none at all to Kafka's own generator.
      defaultText: field.default === undefined || field.default === null ? null : String(field.default),
    });
    return [line, ...(isStructure ? describeSchema(children, versions, common, `${name}.`) : [])];
  });
}

function describeDefinition(fields: readonly Field[], path = ''): string[] {
  return fields.flatMap((field) => {
    if (field.tag !== null && field.tag >= OWN_TAGS_MIN) return [];
    const name = path + field.name;
    const line = describe({ ...field, name, type: (field.isArray ? '[]' : '') + field.type });
    return [line, ...(field.structure === null ? [] : describeDefinition(field.structure.fields, `${name}.`))];
  });
}

function describe(field: Omit<Field, 'structure' | 'isArray' | 'isClipped'>): string {
  const words = [field.name, field.type, `in ${rangeText(field.versions)}`];
  if (field.nullable !== null) words.push(`null in ${rangeText(field.nullable)}`);
  if (field.tag !== null) words.push(`tag ${field.tag}`);
  if (field.isIgnorable) words.push('ignorable');
  if (field.isPlain) words.push('plain');
  words.push(`= ${normalDefault(field.type, field.defaultText)}`);
  return words.join(' ');
}

function normalDefault(type: string, text: string | null): string {
  if (text === 'null') return 'null';
  if (type.startsWith('int')) return BigInt(text ?? 0).toString();
  if (type === 'bool') return text ?? 'false';
  if (type === 'records') return 'null';
  return text ?? '';
}

function rangeText({ first, last }: Versions): string {
  return `${first}-${last}`;
}

function describeMessage(message: Message): string[] {
  const flexible = message.flexibleFrom > message.versions.last ? 'never' : `${message.flexibleFrom}`;
  return [`versions ${rangeText(message.versions)} flexible ${flexible}`, ...describeDefinition(message.fields)];
}

if (schemas.size === 0) {
  test('definitions are as in the schemas of Kafka', (t) => {
    t.log(`compared nothing: no jar of Kafka ${VERSION} found (MILLRACE_KAFKA_CLIENTS_JAR names one)`);
    t.pass();
  });
} else {
  for (const message of definitions.messages) {
    const schema = schemas.get(message.name);
    // The environment may name a kafka-clients jar that has no group coordinator beside it.
    if (schema === undefined && findJar('kafka-group-coordinator') === undefined) continue;
    test(`${message.name} is defined as in Kafka's own schema`, (t) => {
      const versions = within(schema?.validVersions, { first: 0, last: 32767 });
      if (schema === undefined || versions === null) return t.fail('Kafka has no such message');
      const flexible = within(schema.flexibleVersions, versions)?.first ?? 'never';
      return t.deepEqual(describeMessage(message), [
        `versions ${rangeText(versions)} flexible ${flexible}`,
        ...describeSchema(schema.fields, versions, schema.commonStructs ?? []),
      ]);
    });
  }

  for (const api of definitions.apis) {
    test(`${api.name} has Kafka's key, and is unstable where Kafka's is`, (t) => {
      const schema = schemas.get(`${api.name}Request`);
      t.true(api.key === schema?.apiKey);
      t.is(api.unstableFrom, schema?.latestVersionUnstable ? api.versions.last : Number.POSITIVE_INFINITY);
    });
  }
}
