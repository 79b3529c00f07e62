/**
 * Calls a Kafka handler as a connection would, without one: the request goes through the codec of its version, and so
 * does the answer, so a test also proves that the answer can be said in that version.
 */
import { Reader, Writer } from '../../protocol/bytes.ts';
import type { Operation, ResourceType } from '../../broker/access.ts';
import type { Broker } from '../../broker/broker.ts';
import type { ClientConnection, Handler } from '../../broker/kafka/call.ts';

/** The part of a row of `apis` that is needed. */
export interface Api<Request, RequestInit, Response, ResponseInit> {
  readonly name: string;
  writeRequest(writer: Writer, value: RequestInit, version: number): void;
  readRequest(reader: Reader, version: number): Request;
  writeResponse(writer: Writer, value: ResponseInit, version: number): void;
  readResponse(reader: Reader, version: number): Response;
}

export interface Asked<Response> {
  /** Undefined until the handler answered. */
  readonly response: Response | undefined;
  /** Settles when the handler is done executing. */
  readonly executed: Promise<void>;
}

export interface AskOptions {
  version: number;
  clientId?: string;
  /** Operations that are refused: `OPERATION TYPE name`, or without the name for all of them. */
  denied?: readonly string[];
  connection?: Partial<ClientConnection>;
}

const someConnection: ClientConnection = {
  principal: 'User:ANONYMOUS',
  localHost: '127.0.0.1',
  localPort: 9092,
  remoteHost: '127.0.0.1',
  clientSoftwareName: '',
  clientSoftwareVersion: '',
  isClosed: false,
  isEnding: false,
  onClose: () => () => {},
  onEnding: () => () => {},
};

export function ask<Request, RequestInit, Response, ResponseInit>(
  broker: Broker,
  api: Api<Request, RequestInit, Response, ResponseInit>,
  handler: Handler<Request, ResponseInit>,
  request: RequestInit,
  { version, clientId = 'test', denied = [], connection }: AskOptions,
): Asked<Response> {
  const writer = new Writer();
  api.writeRequest(writer, request, version);
  let response: Response | undefined;
  let answers = 0;
  const executed = handler(broker, {
    request: api.readRequest(new Reader(writer.finish()), version),
    version,
    clientId,
    connection: { ...someConnection, ...connection },
    allows: (operation: Operation, type: ResourceType, name: string) =>
      !denied.includes(`${operation} ${type}`) && !denied.includes(`${operation} ${type} ${name}`),
    reply(value) {
      if (answers++ > 0) throw new Error(`${api.name} was answered twice`);
      const answer = new Writer();
      api.writeResponse(answer, value, version);
      response = api.readResponse(new Reader(answer.finish()), version);
    },
    replyNothing() {
      if (answers++ > 0) throw new Error(`${api.name} was answered twice`);
    },
    fail(error) {
      throw error;
    },
  });
  return {
    get response() {
      return response;
    },
    executed: Promise.resolve(executed),
  };
}
