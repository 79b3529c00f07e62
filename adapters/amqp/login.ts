/** Who a client says it is: the responses of the SASL mechanisms PLAIN (RFC 4616) and RabbitMQ's AMQPLAIN. */
import { fieldOf, readTable } from '../../protocol/amqp/table.ts';
import { Reader } from '../../protocol/bytes.ts';
import { ProtocolError } from '../../protocol/errors.ts';

export interface Credentials {
  readonly user: string;
  readonly password: string;
}

export const MECHANISMS = ['PLAIN', 'AMQPLAIN'] as const;

/** Undefined for a mechanism that is not offered, and for a response that is none of it. */
export function credentialsOf(mechanism: string, response: Buffer): Credentials | undefined {
  if (mechanism === 'PLAIN') return plain(response);
  return mechanism === 'AMQPLAIN' ? amqplain(response) : undefined;
}

/** Authorization identity, user, password; RabbitMQ takes no identity. */
function plain(response: Buffer): Credentials | undefined {
  const [identity, user, password, ...rest] = response.toString().split('\0');
  if (identity !== '' || user === undefined || password === undefined || rest.length > 0) return undefined;
  return { user, password };
}

/** A table without its length. */
function amqplain(response: Buffer): Credentials | undefined {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(response.length);
  try {
    const table = readTable(new Reader(Buffer.concat([length, response])));
    const text = (name: string): string | undefined => {
      const field = fieldOf(table, name);
      return field?.type === 'S' ? field.value.toString() : undefined;
    };
    const user = text('LOGIN');
    const password = text('PASSWORD');
    return user === undefined || password === undefined ? undefined : { user, password };
  } catch (error) {
    if (error instanceof ProtocolError) return undefined;
    throw error;
  }
}
