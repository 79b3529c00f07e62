/**
 * Answers of the query protocol:
 *
 *   <SendMessageResponse xmlns="…"><SendMessageResult>…</SendMessageResult>
 *     <ResponseMetadata><RequestId>…</RequestId></ResponseMetadata></SendMessageResponse>
 *   <ErrorResponse xmlns="…"><Error><Type>Sender</Type><Code>…</Code><Message>…</Message><Detail/></Error>
 *     <RequestId>…</RequestId></ErrorResponse>
 */
import { type ActionName, actions, type Output } from './actions.ts';
import type { SqsError } from './errors.ts';
import type { Shape, StructureShape } from './shapes.ts';

export const XML_TYPE = 'text/xml';
const NAMESPACE = 'http://queue.amazonaws.com/doc/2012-11-05/';
const HEAD = '<?xml version="1.0"?>';

export function xmlAnswer<Name extends ActionName>(action: Name, output: Output<Name>, requestId: string): string {
  const { output: shape, hasOutput } = actions[action];
  const result = hasOutput ? `<${action}Result>${structureText(shape, output)}</${action}Result>` : '';
  const metadata = `<ResponseMetadata><RequestId>${requestId}</RequestId></ResponseMetadata>`;
  return `${HEAD}<${action}Response xmlns="${NAMESPACE}">${result}${metadata}</${action}Response>`;
}

export function xmlError(error: SqsError, requestId: string): string {
  const { queryCode, message, isSenderFault } = error;
  const type = isSenderFault ? 'Sender' : 'Receiver';
  const content = `<Type>${type}</Type><Code>${queryCode}</Code><Message>${escapeXml(message)}</Message><Detail/>`;
  return `${HEAD}<ErrorResponse xmlns="${NAMESPACE}"><Error>${content}</Error><RequestId>${requestId}</RequestId></ErrorResponse>`;
}

function structureText({ members }: StructureShape, value: object): string {
  // The value is what the shape says.
  const given = value as Readonly<Record<string, unknown>>;
  let text = '';
  for (const name in members) {
    const member = given[name];
    if (member !== undefined) text += memberText(members[name].shape, name, member);
  }
  return text;
}

function memberText(shape: Shape, name: string, value: unknown): string {
  if (shape.type === 'list') {
    let text = '';
    for (const item of value as readonly unknown[]) text += memberText(shape.member, shape.element, item);
    return text;
  }
  if (shape.type === 'map') {
    let text = '';
    for (const [key, item] of value as ReadonlyMap<string, unknown>) {
      const pair = `<${shape.keyName}>${escapeXml(key)}</${shape.keyName}>${memberText(shape.value, 'Value', item)}`;
      text += `<${shape.element}>${pair}</${shape.element}>`;
    }
    return text;
  }
  return `<${name}>${contentText(shape, value)}</${name}>`;
}

function contentText(shape: Shape, value: unknown): string {
  switch (shape.type) {
    case 'structure':
      return structureText(shape, value as object);
    case 'blob':
      return (value as Buffer).toString('base64');
    case 'string':
      return escapeXml(value as string);
    default:
      return String(value);
  }
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
  // Else readers make a line feed of it.
  '\r': '&#xD;',
};

/** Characters that XML 1.0 has not, become U+FFFD: an error message may quote them. */
export function escapeXml(text: string): string {
  if (!/[^\t\n\x20-\x7e]|[&<>"']/.test(text)) return text;
  return text
    .replace(/[&<>"'\r]/g, (character) => ESCAPES[character])
    .replace(/[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu, '\uFFFD');
}
