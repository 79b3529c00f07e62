/**
 * A client of SQS for tests, by the service model (test/protocol/sqs/service-model.json) instead of our own tables: says
 * requests in either protocol and holds every answer against the model.
 */
import assert from 'node:assert';
import type { ActionName, Output } from '../../protocol/sqs/actions.ts';
import { faultsOf, serviceModel } from '../protocol/sqs/service-model.ts';

export type Protocol = 'json' | 'query';
export const PROTOCOLS: readonly Protocol[] = ['json', 'query'];

/** An answer, as JSON has it, whatever the protocol. */
export interface SqsAnswer {
  readonly status: number;
  /** Undefined: it is an error. */
  readonly output: Readonly<Record<string, unknown>>;
  /** Name in the JSON protocol; of the query protocol found by its code. */
  readonly error: string | undefined;
  readonly message: string;
  readonly headers: Headers;
  readonly text: string;
}

/** A request on its way: the answer's status, headers and text. */
export type Exchange = (request: {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}) => Promise<{ readonly status: number; readonly headers: Headers; readonly text: string }>;

/** Over a socket. */
export const overHttp =
  (endpoint: string): Exchange =>
  async ({ path, headers, body }) => {
    const response = await fetch(`${endpoint}${path}`, { method: 'POST', headers, body });
    return { status: response.status, headers: response.headers, text: await response.text() };
  };

export class SqsClient {
  readonly protocol: Protocol;
  readonly #exchange: Exchange;

  constructor(exchange: Exchange, protocol: Protocol) {
    this.#exchange = exchange;
    this.protocol = protocol;
  }

  /** The answer, which must be as the model has it. `path`: default `/`. */
  async ask(action: string, input: object = {}, { path = '/' }: { path?: string } = {}): Promise<SqsAnswer> {
    const request =
      this.protocol === 'json'
        ? {
            headers: { 'content-type': 'application/x-amz-json-1.0', 'x-amz-target': `AmazonSQS.${action}` },
            body: JSON.stringify(input),
          }
        : { headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: formOf(action, input) };
    return answerOf(action, this.protocol, await this.#exchange({ path, ...request }));
  }

  /** The output; throws with the error's name if there is one. */
  async call<Name extends ActionName>(action: Name, input: object = {}): Promise<Answer<Name>> {
    const { output, error, message } = await this.ask(action, input);
    if (error !== undefined) throw new Error(`${action}: ${error}: ${message}`);
    // Held against the model by `ask`.
    return output as Answer<Name>;
  }
}

/** An output as JSON has it: maps are objects and bytes are base64. */
type Plain<T> = T extends Buffer
  ? string
  : T extends ReadonlyMap<string, infer V>
    ? Readonly<Record<string, Plain<V>>>
    : T extends readonly (infer V)[]
      ? readonly Plain<V>[]
      : T extends object
        ? { readonly [K in keyof T]: Plain<T[K]> }
        : T;
export type Answer<Name extends ActionName> = Plain<Output<Name>>;

function answerOf(
  action: string,
  protocol: Protocol,
  { status, headers, text }: Awaited<ReturnType<Exchange>>,
): SqsAnswer {
  assert.match(headers.get('x-amzn-requestid') ?? '', /^[0-9a-f-]{36}$/, 'every answer has a request id');
  const base = { status, headers, text };
  if (protocol === 'json') {
    assert.equal(headers.get('content-type'), 'application/x-amz-json-1.0');
    const json = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
    if (status !== 200) return { ...base, output: {}, ...jsonErrorOf(json, status, headers) };
    return { ...base, output: checked(action, json), error: undefined, message: '' };
  }
  assert.equal(headers.get('content-type'), 'text/xml');
  const root = parseXml(text);
  if (status !== 200) return { ...base, output: {}, ...xmlErrorOf(root, status, headers) };
  assert.equal(root.name, `${action}Response`);
  assert.equal(textIn(root, 'ResponseMetadata', 'RequestId'), headers.get('x-amzn-requestid'));
  const { output: shape } = serviceModel.operations[action];
  const result = root.children.find(({ name }) => name === `${action}Result`);
  assert.equal(result === undefined, shape === null, 'a result where the model has one');
  const output = result === undefined || shape === null ? {} : fromXml(result, shape);
  return { ...base, output: checked(action, output as Record<string, unknown>), error: undefined, message: '' };
}

function checked(action: string, output: Record<string, unknown>): Record<string, unknown> {
  const { output: shape } = serviceModel.operations[action];
  if (shape === null) assert.deepEqual(output, {}, `${action} answers nothing`);
  else assert.deepEqual(faultsOf(output, shape), [], `the answer of ${action}`);
  return output;
}

function jsonErrorOf(
  json: Record<string, unknown>,
  status: number,
  headers: Headers,
): { error: string; message: string } {
  assert.deepEqual(Object.keys(json).sort(), ['__type', 'message']);
  const error = String(json['__type']).split('#')[1];
  const known = serviceModel.errors[error];
  const header = headers.get('x-amzn-query-error');
  if (known === undefined) assert.match(header ?? '', /^\w+;(Sender|Receiver)$/);
  else {
    assert.equal(header, `${known[0]};Sender`);
    assert.equal(status, known[1]);
  }
  return { error, message: String(json['message']) };
}

function xmlErrorOf(root: XmlNode, status: number, headers: Headers): { error: string; message: string } {
  assert.equal(root.name, 'ErrorResponse');
  assert.equal(textIn(root, 'RequestId'), headers.get('x-amzn-requestid'));
  const code = textIn(root, 'Error', 'Code');
  assert.equal(textIn(root, 'Error', 'Type'), status < 500 ? 'Sender' : 'Receiver');
  const known = Object.entries(serviceModel.errors).find(([, [query]]) => query === code);
  if (known !== undefined) assert.equal(status, known[1][1]);
  return { error: known?.[0] ?? code, message: textIn(root, 'Error', 'Message') };
}

// --- forms ---

export function formOf(action: string, input: object): string {
  const pairs: [string, string][] = [
    ['Action', action],
    ['Version', '2012-11-05'],
  ];
  addForm(pairs, input, serviceModel.operations[action]?.input ?? '', '');
  return pairs.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join('&');
}

/** Names of lists that came after the query protocol's last model. */
const LATER_NAMES: Readonly<Record<string, string>> = { MessageSystemAttributeList: 'MessageSystemAttributeName' };

function addForm(pairs: [string, string][], value: unknown, shapeName: string, path: string): void {
  const shape = serviceModel.shapes[shapeName];
  if (shape?.type !== 'structure') {
    pairs.push([path.slice(0, -1), String(value)]);
    return;
  }
  for (const [name, member] of Object.entries(value as Record<string, unknown>)) {
    const memberName = shape.members?.[name]?.shape ?? '';
    const memberShape = serviceModel.shapes[memberName];
    if (memberShape?.type === 'list') {
      const element = serviceModel.queryNames[memberName] ?? LATER_NAMES[memberName];
      (member as unknown[]).forEach((item, index) =>
        addForm(pairs, item, memberShape.member?.shape ?? '', `${path}${String(element)}.${index + 1}.`),
      );
    } else if (memberShape?.type === 'map') {
      const element =
        serviceModel.queryNames[`${shapeName}.${name}`] ?? serviceModel.queryNames[`${shapeName}.tags`] ?? 'Tag';
      const [keyName, valueName] = serviceModel.queryNames[memberName] as [string, string];
      Object.entries(member as object).forEach(([key, item], index) => {
        pairs.push([`${path}${String(element)}.${index + 1}.${keyName}`, key]);
        addForm(pairs, item, memberShape.value?.shape ?? '', `${path}${String(element)}.${index + 1}.${valueName}.`);
      });
    } else addForm(pairs, member, memberName, `${path}${name}.`);
  }
}

// --- XML ---

interface XmlNode {
  readonly name: string;
  readonly children: XmlNode[];
  text: string;
}

const ENTITIES: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };

/** Elements without attributes but the namespace. */
export function parseXml(text: string): XmlNode {
  const top: XmlNode = { name: '', children: [], text: '' };
  const open = [top];
  for (const [, close, name, empty, content] of text.matchAll(/<\??(\/?)([\w:.]+)[^>]*?(\/?)\??>([^<]*)/g)) {
    if (name === 'xml') continue;
    const parent = open[open.length - 1];
    if (close === '/') {
      assert.equal(parent.name, name);
      open.pop();
      continue;
    }
    const node: XmlNode = { name, children: [], text: unescapeXml(content) };
    parent.children.push(node);
    if (empty !== '/') open.push(node);
  }
  assert.equal(open.length, 1, 'elements are closed');
  assert.equal(top.children.length, 1);
  assert.match(text, /xmlns="http:\/\/queue\.amazonaws\.com\/doc\/2012-11-05\/"/);
  return top.children[0];
}

function unescapeXml(text: string): string {
  return text.replace(/&(#x?[0-9a-fA-F]+|\w+);/g, (whole, name: string) => {
    if (name.startsWith('#x')) return String.fromCodePoint(Number.parseInt(name.slice(2), 16));
    if (name.startsWith('#')) return String.fromCodePoint(Number(name.slice(1)));
    return ENTITIES[name] ?? whole;
  });
}

function textIn(node: XmlNode, ...path: string[]): string {
  let at: XmlNode | undefined = node;
  for (const name of path) at = at?.children.find((child) => child.name === name);
  return at?.text ?? '';
}

function fromXml(node: XmlNode, shapeName: string): unknown {
  const shape = serviceModel.shapes[shapeName];
  if (shape.type === 'integer' || shape.type === 'long') return Number(node.text);
  if (shape.type === 'boolean') return node.text === 'true';
  if (shape.type !== 'structure') return node.text;
  const value: Record<string, unknown> = {};
  const known = new Set<string>();
  for (const [name, member] of Object.entries(shape.members ?? {})) {
    const memberShape = serviceModel.shapes[member.shape];
    if (memberShape.type === 'list') {
      const element = String(serviceModel.queryNames[member.shape]);
      known.add(element);
      const items = node.children.filter((child) => child.name === element);
      // An empty list is no element at all.
      if (items.length > 0 || (shape.required ?? []).includes(name)) {
        value[name] = items.map((item) => fromXml(item, memberShape.member?.shape ?? ''));
      }
    } else if (memberShape.type === 'map') {
      const element = String(serviceModel.queryNames[`${shapeName}.${name}`]);
      const [keyName, valueName] = serviceModel.queryNames[member.shape] as [string, string];
      known.add(element);
      const items = node.children.filter((child) => child.name === element);
      if (items.length === 0) continue;
      const entries = items.map((item): [string, unknown] => {
        const valueNode = item.children.find((child) => child.name === valueName);
        assert(valueNode !== undefined);
        return [textIn(item, keyName), fromXml(valueNode, memberShape.value?.shape ?? '')];
      });
      value[name] = Object.fromEntries(entries);
    } else {
      known.add(name);
      const child = node.children.find((each) => each.name === name);
      if (child !== undefined) value[name] = fromXml(child, member.shape);
    }
  }
  for (const { name } of node.children) assert(known.has(name), `${shapeName} has an element <${name}>`);
  return value;
}
