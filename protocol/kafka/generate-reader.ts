/** Code that reads a structure: one statement a field, in wire order, then the tagged fields, then the object. */
import type { Field, Message, Structure } from './definition.ts';
import {
  FIXED_SIZES,
  type Scope,
  TAKEN,
  condition,
  defaultOf,
  flexibleIn,
  flexibleLocal,
  flexibleScope,
  indent,
  methodName,
  sizedName,
  taggedFields,
  typeOf,
  versionCheck,
} from './generate-shape.ts';

export function readFunction(message: Message, structure: Structure): string {
  const scope: Scope = { message, versions: structure.versions };
  const isMessage = structure === message;
  const lines: string[] = [];
  for (const field of structure.fields) {
    if (field.tag === null) lines.push(...readField({ ...field, name: localName(field) }, scope));
    else if (localName(field) !== field.name) throw new Error(`field name ${field.name} is taken`);
    else lines.push(`let ${field.name}: ${typeOf(field, 'read')} = ${defaultOf(field)};`);
  }
  const parts = structure.fields.map((field) => {
    const local = localName(field);
    return local === field.name ? local : `${field.name}: ${local}`;
  });
  lines.push(...readTags(structure, scope), `return { ${parts.join(', ')} };`);
  const body = indent(lines);
  const check = isMessage ? versionCheck(message, 'unreadableVersion') : '';
  const parameters = `reader: Reader, ${/\bversion\b/.test(check + body) || flexibleLocal(scope, body) !== '' ? '' : '_'}version: number`;
  const start = `${isMessage ? 'export ' : ''}function read${structure.name}(${parameters}): ${structure.name} {\n`;
  return `${start}${check}${flexibleLocal(scope, body)}${body}}\n`;
}

/** The variable a field is read into: its own name, unless the function uses that for something else. */
function localName({ name }: Field): string {
  return TAKEN.has(name) && name !== 'value' ? `${name}Field` : name;
}

function readField(field: Field, scope: Scope): string[] {
  const present = condition(field.versions, scope.versions);
  const inside: Scope = { ...scope, versions: field.versions };
  const orDefault = (expression: string, otherwise: string): string =>
    present === '' ? expression : `${present} ? ${expression} : ${otherwise}`;
  const type = typeOf(field, 'read');
  if (!field.isArray) return [`const ${field.name} = ${orDefault(readScalar(field, inside), defaultOf(field))};`];
  const length = `${field.name}Length`;
  const flexible = flexibleIn(inside);
  const whereNullable = field.nullable === null ? null : condition(field.nullable, field.versions);
  let lengthCode = `readLength(reader, ${flexible})`;
  if (whereNullable === '') lengthCode = `readNullableLength(reader, ${flexible})`;
  else if (whereNullable !== null) {
    lengthCode = `${whereNullable} ? readNullableLength(reader, ${flexible}) : ${lengthCode}`;
    if (present !== '') lengthCode = `(${lengthCode})`;
  }
  const isNullable = field.nullable !== null;
  return [
    `const ${length} = ${orDefault(lengthCode, defaultOf(field) === 'null' ? '-1' : '0')};`,
    `const ${field.name}: ${type} = ${isNullable ? `${length} < 0 ? null : []` : '[]'};`,
    `for (let i = 0; i < ${length}; i++) ${field.name}${isNullable ? '?' : ''}.push(${readElement(field, inside)});`,
  ];
}

function readScalar(field: Field, scope: Scope): string {
  const { nullable } = field;
  const one = readElement(field, scope);
  if (nullable === null) return one;
  const where = condition(nullable, scope.versions);
  let nullableCode: string;
  if (field.type === 'struct') nullableCode = `reader.int8() < 0 ? null : ${one}`;
  else nullableCode = readSized(field, scope, 'Nullable');
  if (where === '') return field.type === 'struct' ? `(${nullableCode})` : nullableCode;
  return `(${where} ? ${nullableCode} : ${one})`;
}

function readElement(field: Field, scope: Scope): string {
  if (field.structure !== null) return `read${field.structure.name}(reader, version)`;
  if (field.type === 'int64' && field.isClipped) return 'reader.int64Clipped()';
  return FIXED_SIZES.has(field.type) ? `reader.${field.type}()` : readSized(field, scope, '');
}

/** A string or byte array. */
function readSized(field: Field, scope: Scope, nullable: '' | 'Nullable'): string {
  const flexible = flexibleIn(scope, field);
  if (flexible === 'flexible') return `read${nullable}${sizedName(field)}(reader, flexible)`;
  return `reader.${methodName(field, flexible === 'true', nullable)}()`;
}

function readTags(structure: Structure, scope: Scope): string[] {
  const flexible = flexibleIn(scope);
  if (flexible === 'false') return [];
  const tagged = taggedFields(structure);
  if (tagged.length === 0) return [flexible === 'true' ? 'skipTags(reader);' : 'if (flexible) skipTags(reader);'];
  const cases = tagged.flatMap((field, index) => {
    const where = condition(field.versions, flexibleScope(scope));
    const test = `${index === 0 ? '' : 'else '}if (tag === ${field.tag}${where === '' ? '' : ` && ${where}`})`;
    const inside: Scope = { ...scope, versions: field.versions };
    if (field.structure !== null && !field.isArray && field.nullable !== null) {
      return [`${test} ${field.name} = reader.uvarint() === 0 ? null : ${readElement(field, inside)};`];
    }
    if (!field.isArray) return [`${test} ${field.name} = ${readScalar(field, inside)};`];
    const isNullable = field.nullable !== null;
    return [
      `${test} {`,
      `  let left = read${isNullable ? 'Nullable' : ''}Length(reader, true);`,
      `  ${field.name} = ${isNullable ? 'left < 0 ? null : ' : ''}[];`,
      `  for (; left > 0; left--) ${field.name}${isNullable ? '?' : ''}.push(${readElement(field, inside)});`,
      '}',
    ];
  });
  const loop = [
    'for (let tagsLeft = reader.uvarint(); tagsLeft > 0; tagsLeft--) {',
    '  const tag = reader.uvarint();',
    '  const size = reader.uvarint();',
    '  const end = reader.offset + size;',
    ...cases.map((line) => `  ${line}`),
    '  else reader.skip(size);',
    '  endTag(reader, end);',
    '}',
  ];
  return flexible === 'true' ? loop : ['if (flexible) {', ...loop.map((line) => `  ${line}`), '}'];
}
