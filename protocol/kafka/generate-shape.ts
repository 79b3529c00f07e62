/**
 * What generated readers and writers of a field have in common: its types and default in TypeScript, the conditions on the
 * version, the names of the primitives' methods.
 */
import type { Field, Message, Structure, Versions } from './definition.ts';

/** Names that generated functions use themselves; no field with a local of its own may bear one. */
export const TAKEN = new Set([
  'reader',
  'writer',
  'value',
  'version',
  'flexible',
  'tagsLeft',
  'tag',
  'size',
  'end',
  'body',
]);

export const FIXED_SIZES = new Map([
  ['bool', 1],
  ['int8', 1],
  ['int16', 2],
  ['int32', 4],
  ['int64', 8],
  ['uuid', 16],
]);

/** What surrounds a field while its code is written. */
export interface Scope {
  readonly message: Message;
  readonly versions: Versions;
}

export function hasInit(structure: Structure): boolean {
  const isMessage = 'flexibleFrom' in structure;
  return (
    isMessage ||
    structure.fields.some((field) => isOptionalOn(field, structure) || typeOf(field, 'write') !== typeOf(field, 'read'))
  );
}

export function isOptionalOn(field: Field, structure: Structure): boolean {
  return field.defaultText !== null || field.tag !== null || !sameVersions(field.versions, structure.versions);
}

export function typeOf(field: Field, side: 'read' | 'write'): string {
  let type = elementType(field, side);
  if (field.isArray) type = side === 'write' ? `readonly ${type}[]` : `${type}[]`;
  return field.nullable === null ? type : `${type} | null`;
}

function elementType(field: Field, side: 'read' | 'write'): string {
  if (field.structure !== null) {
    return side === 'write' && hasInit(field.structure) ? `${field.structure.name}Init` : field.structure.name;
  }
  if (field.type === 'bool') return 'boolean';
  if (field.type === 'string' || field.type === 'uuid') return 'string';
  if (field.type === 'bytes') return side === 'read' ? 'Buffer' : 'Uint8Array';
  if (field.type === 'records') return side === 'read' ? 'Buffer' : 'Payload';
  return 'number';
}

/** The default as an expression of the type as read. */
export function defaultOf(field: Field): string {
  const text = field.defaultText;
  if (text === 'null') return 'null';
  if (field.isArray) return '[]';
  switch (field.type) {
    case 'struct':
      return `default${field.structure?.name}()`;
    case 'bool':
      return text ?? 'false';
    case 'string':
      return `'${text ?? ''}'`;
    case 'uuid':
      return 'ZERO_UUID';
    case 'bytes':
      return 'NO_BYTES';
    case 'records':
      return 'null';
    default:
      return field.isClipped && Number(text) > Number.MAX_SAFE_INTEGER ? 'Number.MAX_SAFE_INTEGER' : (text ?? '0');
  }
}

export function sameVersions(one: Versions, other: Versions): boolean {
  return one.first === other.first && one.last === other.last;
}

export function rangeText({ first, last }: Versions): string {
  return first === last ? `${first}` : `${first}-${last}`;
}

/** An expression that holds in `versions`, given that the version is within `scope`; '' when it always holds. */
export function condition(versions: Versions, scope: Versions): string {
  const tests: string[] = [];
  if (versions.first === versions.last && !sameVersions(versions, scope)) return `version === ${versions.first}`;
  if (versions.first > scope.first) tests.push(`version >= ${versions.first}`);
  if (versions.last < scope.last) tests.push(`version <= ${versions.last}`);
  return tests.join(' && ');
}

/** 'true', 'false' or the name of the local that says whether the version is flexible. */
export function flexibleIn({ message, versions }: Scope, field?: Field): string {
  if (field?.isPlain || message.flexibleFrom > versions.last) return 'false';
  return message.flexibleFrom <= versions.first ? 'true' : 'flexible';
}

export function flexibleLocal(scope: Scope, code: string): string {
  return /\bflexible\b/.test(code) ? `  const flexible = version >= ${scope.message.flexibleFrom};\n` : '';
}

export function versionCheck(message: Message, refusal: string): string {
  const { first, last } = message.versions;
  return `  if (!(version >= ${first} && version <= ${last})) throw ${refusal}('${message.name}', version);\n`;
}

export function sizedName(field: Field): string {
  return field.type === 'string' ? 'String' : 'Bytes';
}

export function methodName(field: Field, isCompact: boolean, nullable: '' | 'Nullable'): string {
  const name = `${isCompact ? 'Compact' : ''}${nullable}${field.type === 'string' ? 'String' : 'ByteArray'}`;
  return name[0].toLowerCase() + name.slice(1);
}

export function taggedFields(structure: Structure): Field[] {
  return structure.fields.filter((field) => field.tag !== null).sort((one, other) => (one.tag ?? 0) - (other.tag ?? 0));
}

export function flexibleScope({ message, versions }: Scope): Versions {
  return { first: Math.max(versions.first, message.flexibleFrom), last: versions.last };
}

export function indent(lines: readonly string[]): string {
  return lines.map((line) => `  ${line}\n`).join('');
}
