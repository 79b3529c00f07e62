/** Where Kafka clients are told to find this node: `advertised.listeners`, read once at the start. */
import { MillraceError } from '../protocol/errors.ts';
import type { Broker } from './broker.ts';

/** Security protocols of Kafka that the door does not speak. */
const SECURED = new Set(['SSL', 'SASL_PLAINTEXT', 'SASL_SSL']);
const WILDCARDS = new Set(['0.0.0.0', '::']);
/** `NAME://` if there is one, then `HOST`, `[IPV6]` or nothing, then `:PORT` or nothing. */
const LISTENER = /^(?:([A-Za-z0-9_-]+):\/\/)?(?:\[([0-9A-Fa-f:.]+(?:%[\w.]+)?)\]|([\w.-]*))(?::(\d{1,5}))?$/;

/**
 * See `Broker.advertised`. What `listeners` leaves out is `doorHost` (of the Kafka door, if it is no wildcard) and what
 * the connection has. @throws MillraceError INVALID_OPTION
 */
export function advertiser(listeners: string, doorHost: string): Broker['advertised'] {
  const { host, port } = parseListener(listeners.trim());
  return ({ localHost, localPort }) => ({ host: host || doorHost || unmapped(localHost), port: port || localPort });
}

function parseListener(text: string): { host: string; port: number } {
  if (text === '') return { host: '', port: 0 };
  if (text.includes(',')) throw invalid(`'${text}' has several addresses; there is one Kafka door`);
  const match = LISTENER.exec(text);
  if (!match) throw invalid(`'${text}' is not HOST:PORT (an IPv6 address stands in brackets)`);
  const [, name = '', ipv6, plain, digits = '0'] = match;
  const host = ipv6 ?? plain;
  const port = Number(digits);
  if (SECURED.has(name.toUpperCase())) throw invalid(`'${text}': only PLAINTEXT is served`);
  if (WILDCARDS.has(host)) throw invalid(`'${text}': no client can connect to ${host}; name an address that it can`);
  if (port > 65_535) throw invalid(`'${text}': ports go up to 65535`);
  return { host, port };
}

function invalid(problem: string): MillraceError {
  return new MillraceError('INVALID_OPTION', `advertised.listeners ${problem}`);
}

/** An IPv4 address as a dual-stack socket shows it, in its own form. */
function unmapped(host: string): string {
  return host.startsWith('::ffff:') ? host.slice(7) : host;
}
