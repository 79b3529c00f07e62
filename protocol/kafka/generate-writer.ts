/** Code that writes a structure, and that tells whether a value differs from its default. */
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
  hasInit,
  indent,
  isOptionalOn,
  methodName,
  sizedName,
  taggedFields,
  versionCheck,
} from './generate-shape.ts';

export function writeFunction(message: Message, structure: Structure): string {
  const scope: Scope = { message, versions: structure.versions };
  const isMessage = structure === message;
  const lines: string[] = [];
  for (const field of structure.fields) {
    const path = `'${structure.name}.${field.name}'`;
    const absent = field.isIgnorable ? '' : `throw notInVersion(${path}, version);`;
    const present = condition(field.versions, scope.versions);
    if (field.tag !== null) {
      if (absent !== '' && present !== '') lines.push(`if (!(${present}) && ${differs(field)}) ${absent}`);
      continue;
    }
    const code = writeField(field, structure, { ...scope, versions: field.versions }, path);
    if (present === '') {
      lines.push(...code);
      continue;
    }
    if (code.length === 1) lines.push(`if (${present}) ${code[0]}`);
    else lines.push(`if (${present}) {`, ...code.map((line) => `  ${line}`), '}');
    if (absent === '') continue;
    lines.push(`else if (${differs(field)}) ${absent}`);
  }
  lines.push(...writeTags(structure, scope));
  const body = indent(lines);
  const check = isMessage ? versionCheck(message, 'unwritableVersion') : '';
  const init = hasInit(structure) ? `${structure.name}Init` : structure.name;
  const usesVersion = /\bversion\b/.test(check + body) || flexibleLocal(scope, body) !== '';
  const parameters = `writer: Writer, value: ${init}, ${usesVersion ? '' : '_'}version: number`;
  const start = `${isMessage ? 'export ' : ''}function write${structure.name}(${parameters}): void {\n`;
  return `${start}${check}${flexibleLocal(scope, body)}${body}}\n`;
}

/** The value to write, default included; not for arrays and structures that may be absent. */
function valueOf(field: Field, structure: Structure): string {
  const read = `value.${field.name}`;
  if (!isOptionalOn(field, structure)) return read;
  const otherwise = defaultOf(field);
  if (field.nullable === null || otherwise === 'null') return `${read} ?? ${otherwise}`;
  return `${read} === undefined ? ${otherwise} : ${read}`;
}

function writeField(field: Field, structure: Structure, scope: Scope, path: string): string[] {
  let source = valueOf(field, structure);
  const whereNullable = field.nullable === null ? '' : condition(field.nullable, field.versions);
  if (whereNullable !== '') source = `${whereNullable} ? ${source} : required(${source}, ${path}, version)`;
  if (!field.isArray && field.structure === null) return [writeScalar(field, 'writer', source, scope)];
  const isSimple = source === `value.${field.name}`;
  const name = isSimple ? source : field.name;
  if (!isSimple && TAKEN.has(name)) throw new Error(`field name ${name} is taken`);
  const lines = isSimple ? [] : [`const ${name} = ${source};`];
  if (field.isArray) return [...lines, ...writeArray(field, 'writer', name, scope)];
  const call = `write${field.structure?.name}(writer, ${name}, version);`;
  if (field.nullable === null) return [...lines, call];
  return [...lines, `writer.int8(${name} === null ? -1 : 1);`, `if (${name} !== null) ${call}`];
}

function writeScalar(field: Field, writer: string, source: string, scope: Scope): string {
  if (FIXED_SIZES.has(field.type)) return `${writer}.${field.type}(${source});`;
  const nullable = field.nullable === null ? '' : 'Nullable';
  const flexible = flexibleIn(scope, field);
  if (flexible === 'flexible') return `write${nullable}${sizedName(field)}(${writer}, ${source}, flexible);`;
  return `${writer}.${methodName(field, flexible === 'true', nullable)}(${source});`;
}

function writeArray(field: Field, writer: string, name: string, scope: Scope): string[] {
  const isNullable = field.nullable !== null;
  const element =
    field.structure === null
      ? writeScalar({ ...field, nullable: null }, writer, 'element', scope)
      : `write${field.structure.name}(${writer}, element, version);`;
  return [
    `writeLength(${writer}, ${isNullable ? `${name} === null ? -1 : ${name}.length` : `${name}.length`}, ${flexibleIn(scope)});`,
    `for (const element of ${isNullable ? `${name} ?? []` : name}) ${element}`,
  ];
}

/** An expression: the value to write differs from the default. */
export function differs(field: Field): string {
  const read = `value.${field.name}`;
  const otherwise = defaultOf(field);
  if (otherwise === 'null') return `${read} !== undefined && ${read} !== null`;
  if (field.isArray || field.type === 'bytes') {
    const test = `${read}.length !== 0`;
    return `${read} !== undefined && ${field.nullable === null ? test : `(${read} === null || ${test})`}`;
  }
  if (field.structure !== null) {
    const test = `!isDefault${field.structure.name}(${read})`;
    return `${read} !== undefined && ${field.nullable === null ? test : `(${read} === null || ${test})`}`;
  }
  return `${read} !== undefined && ${read} !== ${otherwise}`;
}

function writeTags(structure: Structure, scope: Scope): string[] {
  const flexible = flexibleIn(scope);
  if (flexible === 'false') return [];
  const tagged = taggedFields(structure);
  if (tagged.length === 0) return [flexible === 'true' ? 'writer.uvarint(0);' : 'if (flexible) writer.uvarint(0);'];
  const flags: string[] = [];
  const writes: string[] = [];
  for (const field of tagged) {
    const flag = `has${field.name[0].toUpperCase()}${field.name.slice(1)}`;
    const where = condition(field.versions, flexibleScope(scope));
    flags.push(`const ${field.name} = value.${field.name};`);
    const test = differs(field).replaceAll('value.', '');
    flags.push(`const ${flag} = ${where === '' ? '' : `${where} && `}${test};`);
    writes.push(
      `if (${flag}) {`,
      ...writeTagged(field, { ...scope, versions: field.versions }).map((line) => `  ${line}`),
      '}',
    );
  }
  const count = tagged.map(({ name }) => `Number(has${name[0].toUpperCase()}${name.slice(1)})`).join(' + ');
  const lines = [...flags, `writer.uvarint(${count});`, ...writes];
  return flexible === 'true' ? lines : ['if (flexible) {', ...lines.map((line) => `  ${line}`), '}'];
}

function writeTagged(field: Field, scope: Scope): string[] {
  const size = field.isArray ? undefined : FIXED_SIZES.get(field.type);
  if (size !== undefined) {
    return [`writer.uvarint(${field.tag});`, `writer.uvarint(${size});`, `writer.${field.type}(${field.name});`];
  }
  const inside: Scope = { ...scope, versions: flexibleScope(scope) };
  let code: string[];
  if (field.isArray) code = writeArray(field, 'body', field.name, inside);
  else if (field.structure !== null) {
    const write = `write${field.structure.name}(body, ${field.name}, version);`;
    // Whether there is one: here a varint, elsewhere an int8 of 1 or -1.
    const isThere = `body.uvarint(${field.name} === null ? 0 : 1);`;
    code = field.nullable === null ? [write] : [isThere, `if (${field.name} !== null) ${write}`];
  } else code = [writeScalar({ ...field, nullable: null }, 'body', field.name, inside)];
  return ['const body = tagWriter();', ...code, `writeTag(writer, ${field.tag}, body);`];
}
