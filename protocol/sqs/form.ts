/**
 * Requests of the query protocol: a form (`Action=SendMessage&MessageBody=…`) becomes what a shape says. Lists and maps are
 * flattened: `AttributeName.1`, `Attribute.1.Name` and `Attribute.1.Value`. A list may also go by the name of its member
 * (`AttributeNames.1`), as some clients have it.
 */
import { decodeBlob } from './json.ts';
import { invalidValue, missing, SqsError } from './errors.ts';
import type { Shape, StructureShape, ValueOf } from './shapes.ts';

/** Ten messages with ten attributes each take 430. */
const PAIRS_MAX = 4096;
const DEPTH_MAX = 8;
const INTEGER = /^[+-]?\d{1,10}$/;

/** One name of a form and what is below it. */
export interface FormNode {
  value: string | undefined;
  readonly children: Map<string, FormNode>;
}

const newNode = (): FormNode => ({ value: undefined, children: new Map() });

/** Texts as `application/x-www-form-urlencoded`; a name that comes again replaces what it was. */
export function parseForm(...texts: readonly string[]): FormNode {
  const root = newNode();
  let pairs = 0;
  for (const text of texts) {
    for (let start = 0; start < text.length; ) {
      let end = text.indexOf('&', start);
      if (end < 0) end = text.length;
      if (end > start) {
        if (++pairs > PAIRS_MAX) {
          throw new SqsError('MalformedQueryString', `The request has more than ${PAIRS_MAX} parameters`);
        }
        const equals = text.indexOf('=', start);
        const nameEnd = equals < 0 || equals > end ? end : equals;
        setValue(root, decode(text.slice(start, nameEnd)), decode(text.slice(Math.min(nameEnd + 1, end), end)));
      }
      start = end + 1;
    }
  }
  return root;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch (error) {
    throw new SqsError('MalformedQueryString', 'The request has a parameter that is not UTF-8 in percent encoding', {
      cause: error,
    });
  }
}

function setValue(root: FormNode, name: string, value: string): void {
  let node = root;
  const parts = name.split('.', DEPTH_MAX + 1);
  if (parts.length > DEPTH_MAX) return;
  for (const part of parts) {
    let child = node.children.get(part);
    if (child === undefined) {
      child = newNode();
      node.children.set(part, child);
    }
    node = child;
  }
  node.value = value;
}

export const formText = (form: FormNode, name: string): string | undefined => form.children.get(name)?.value;

/** The request as its shape has it. */
export function readForm<S extends StructureShape>(shape: S, form: FormNode): ValueOf<S> {
  // The reader builds what the shape says.
  return readStructure(shape, form, '') as ValueOf<S>;
}

function readStructure({ members }: StructureShape, node: FormNode, path: string): unknown {
  const value: Record<string, unknown> = {};
  for (const name in members) {
    const { shape, isRequired } = members[name];
    const member = read(shape, node, name, path);
    if (member !== undefined) value[name] = member;
    // A batch without entries is an empty one: a form has no other way to say it.
    else if (isRequired && shape.type === 'list' && shape.member.type === 'structure') value[name] = [];
    else if (isRequired) throw missing(path + name);
  }
  return value;
}

/** The member `name` of what is at `parent`; undefined if it is not there. */
function read(shape: Shape, parent: FormNode, name: string, path: string): unknown {
  if (shape.type === 'list') {
    const items = itemsOf(parent, shape.element) ?? itemsOf(parent, name);
    return items?.map(([number, item]) => readItem(shape.member, item, `${path}${shape.element}.${number}`));
  }
  if (shape.type === 'map') {
    const items = itemsOf(parent, shape.element) ?? itemsOf(parent, name);
    if (items === undefined) return undefined;
    const values = new Map<string, unknown>();
    for (const [number, item] of items) {
      const itemPath = `${path}${shape.element}.${number}`;
      const key = formText(item, shape.keyName);
      if (key === undefined) throw missing(`${itemPath}.${shape.keyName}`);
      const value = item.children.get('Value');
      if (value === undefined) throw missing(`${itemPath}.Value`);
      values.set(key, readItem(shape.value, value, `${itemPath}.Value`));
    }
    return values;
  }
  const node = parent.children.get(name);
  return node === undefined ? undefined : readItem(shape, node, path + name);
}

function readItem(shape: Shape, node: FormNode, path: string): unknown {
  if (shape.type === 'structure') return readStructure(shape, node, `${path}.`);
  const { value } = node;
  if (value === undefined) throw missing(path);
  switch (shape.type) {
    case 'integer':
    case 'long':
      if (INTEGER.test(value)) return Number(value);
      throw invalidValue(path, value, 'Must be an integer.');
    case 'boolean':
      if (value === 'true' || value === 'false') return value === 'true';
      throw invalidValue(path, value, 'Must be true or false.');
    case 'blob':
      return decodeBlob(value);
    default:
      return value;
  }
}

/** In the order of their numbers, which may have gaps. */
function itemsOf(parent: FormNode, name: string): [number: number, item: FormNode][] | undefined {
  const node = parent.children.get(name);
  if (node === undefined) return undefined;
  const items: [number, FormNode][] = [];
  for (const [key, item] of node.children) if (/^\d{1,6}$/.test(key)) items.push([Number(key), item]);
  if (items.length === 0) return undefined;
  return items.sort(([a], [b]) => a - b);
}
