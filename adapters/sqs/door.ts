/**
 * The SQS door of a broker: a request over HTTP comes in, an answer goes out. Knows no socket: `handle` is called by the
 * HTTP server (`broker/http-server.ts`) or by a test. Both protocols are spoken, told apart by the header `X-Amz-Target`.
 */
import { type ActionName, actions, isAction, type Output, TARGET_PREFIX } from '../../protocol/sqs/actions.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { SqsError } from '../../protocol/sqs/errors.ts';
import { type FormNode, formText, parseForm, readForm } from '../../protocol/sqs/form.ts';
import { JSON_TYPE, jsonError, parseJson, queryErrorHeader, readJson, writeJson } from '../../protocol/sqs/json.ts';
import type { SignableRequest } from '../../protocol/sqs/signature.ts';
import type { StructureShape } from '../../protocol/sqs/shapes.ts';
import { XML_TYPE, xmlAnswer, xmlError } from '../../protocol/sqs/xml.ts';
import { type Random, randomUuid } from '../../storage/clock.ts';
import type { Access } from '../../broker/access.ts';
import type { Metrics } from '../../broker/metrics.ts';
import { BodyRefused, type HttpAnswer, type HttpDoor, type HttpRequest, listenHttp } from '../../broker/http-server.ts';
import type { QueueJobs } from '../../broker/queue-jobs.ts';
import type { QueueReader } from '../../broker/queue-reader.ts';
import { QueueAddresses, queueOfPath, regionOfHost } from './addresses.ts';
import { Authenticator, type AuthenticatorParts } from './authenticator.ts';
import { Call } from './call.ts';
import { sqsErrorOf } from './failure.ts';
import { Gate } from './gate.ts';
import type { Handlers } from './handlers.ts';
import { messageActions } from './message-actions.ts';
import { MoveTasks } from './move-tasks.ts';
import { queueActions } from './queue-actions.ts';
import { QueueBook, type QueueBookParts } from './queue-book.ts';
import { Receipts } from './receipts.ts';
import { Receiver } from './receiver.ts';
import { Sender } from './sender.ts';
import { Settling } from './settling.ts';
import type { WantedQueue } from './startup.ts';

export interface SqsDoorParts extends QueueBookParts {
  readonly random: Random;
  readonly reader: QueueReader;
  readonly jobs: QueueJobs;
  readonly access: Access;
  readonly keyOf: AuthenticatorParts['keyOf'];
  /** No signature is asked for: no keys are configured, and strangers cannot come in. */
  readonly isOpen: AuthenticatorParts['isOpen'];
  /** A handler failed in a way that it does not know. */
  report(message: string, error: unknown): void;
}

/** A request, and in which protocol it is answered. */
interface Asked {
  readonly protocol: 'json' | 'query';
  /** As the client wrote it. */
  readonly action: string;
  /** What `readJson` or `readForm` take. */
  readonly content: { readonly json: unknown } | { readonly form: FormNode };
}

/** Presigned requests have all of it in their first line. */
const HEADERS_BYTES_MAX = 64 * 1024;
const REQUEST_MS = 30_000;
/** Longer than the longest poll. */
const IDLE_MS = 75_000;
/** The rest of a request id, which looks like a UUID, counts. */
const ID_PREFIX_CHARACTERS = 24;
const COUNTER_DIGITS = 12;

export class SqsDoor {
  readonly #parts: SqsDoorParts;
  readonly #book: QueueBook;
  readonly #receiver: Receiver;
  readonly #authenticator: Authenticator;
  readonly #handlers: Handlers;
  readonly #addresses = new QueueAddresses();
  readonly #requestIdPrefix: string;
  #requestCount = 0;
  /** By action (empty: none that is known) and code of the error. */
  readonly #outcomes = new Map<string, number>();
  #answering = 0;

  constructor(parts: SqsDoorParts) {
    this.#parts = parts;
    const { engine, clock, options, queues, reader, random, access, jobs } = parts;
    const book = new QueueBook(parts);
    const receipts = new Receipts({
      clock,
      random,
      keys: book.facts.receiptKeys,
      commit: (facts) => book.commit(facts),
    });
    const gate = new Gate(book, access);
    this.#book = book;
    this.#receiver = new Receiver({ clock, queues, reader, book, receipts });
    this.#authenticator = new Authenticator(parts);
    const sender = new Sender({ engine, clock, queues });
    const settling = new Settling({ clock, receipts });
    this.#handlers = {
      ...queueActions({ clock, options, book, gate, tasks: new MoveTasks({ book, jobs }) }),
      ...messageActions({ engine, book, gate, sender, receiver: this.#receiver, settling }),
    };
    this.#requestIdPrefix = randomUuid(random).slice(0, ID_PREFIX_CHARACTERS);
  }

  /** Once, after the queues are loaded; also where no SQS client may come in. */
  load(): Promise<void> {
    return this.#book.load();
  }

  /**
   * Makes queues that are not there yet; those that are there otherwise stay as they are, and the operator is told. Resolves when
   * it is durable. INVALID_OPTION for a queue that cannot be.
   */
  async makeQueues(wanted: readonly WantedQueue[]): Promise<void> {
    const { report } = this.#parts;
    const policies: [name: string, policy: string][] = [];
    for (const { name, attributes, tags } of wanted) {
      const others = new Map(attributes);
      const policy = others.get('RedrivePolicy');
      // Dead-letter queues may come later in the list.
      others.delete('RedrivePolicy');
      try {
        const isNew = this.#book.find(name) === undefined;
        this.#book.create(name, others, tags);
        if (isNew && policy !== undefined) policies.push([name, policy]);
      } catch (error) {
        if (!(error instanceof SqsError) || error.code !== 'QueueNameExists') throw cannotMake(name, error);
        report(`the queue '${name}' is there with other attributes and stays as it is`, error.message);
      }
    }
    for (const [name, policy] of policies) {
      try {
        this.#book.setAttributes(this.#book.get(name), new Map([['RedrivePolicy', policy]]));
      } catch (error) {
        throw cannotMake(name, error);
      }
    }
    await this.#book.durable();
  }

  /** Requests that have no answer yet. */
  get isIdle(): boolean {
    return this.#answering === 0;
  }
  /** Receives that wait for messages. */
  get waitingCount(): number {
    return this.#receiver.waitingCount;
  }

  /** What the door shows of itself. */
  observe(metrics: Metrics): void {
    metrics.observed(
      'gauge',
      'millrace_sqs_long_polls',
      'Receives over SQS that wait for messages.',
      () => this.waitingCount,
    );
    metrics.observed('counter', 'millrace_sqs_requests_total', 'Requests over SQS, by action and outcome.', () =>
      [...this.#outcomes].map(([outcome, count]): [Record<string, string>, number] => {
        const [action, code] = outcome.split(' ');
        return [{ action, code }, count];
      }),
    );
  }

  #count(action: string, code: string): void {
    const outcome = `${action} ${code}`;
    this.#outcomes.set(outcome, (this.#outcomes.get(outcome) ?? 0) + 1);
  }

  /** Long polls end, with nothing. */
  drain(): void {
    this.#receiver.drain();
  }

  listen({ host, port }: { host: string; port: number }): Promise<HttpDoor> {
    const { options, report } = this.#parts;
    return listenHttp({
      host,
      port,
      handler: (request) => this.handle(request),
      headersBytesMax: HEADERS_BYTES_MAX,
      requestMs: REQUEST_MS,
      idleMs: IDLE_MS,
      connectionsMax: options['connections.max'],
      bodiesBytesMax: options['requests.buffered.bytes.max'],
      failed: (error) => report('an SQS request failed', error),
    });
  }

  async handle(request: HttpRequest): Promise<HttpAnswer> {
    const requestId = `${this.#requestIdPrefix}${(++this.#requestCount).toString(16).padStart(COUNTER_DIGITS, '0')}`;
    let protocol: Asked['protocol'] = textOf(request, 'x-amz-target') === undefined ? 'query' : 'json';
    let action = '';
    this.#answering++;
    try {
      const body = await request.body(this.#parts.options['sqs.request.bytes.max']);
      const { user, region } = this.#authenticator.check(signable(request, body));
      const asked = askedOf(request, body);
      protocol = asked.protocol;
      if (!isAction(asked.action)) throw unknownAction(asked);
      action = asked.action;
      const input = inputOf(asked.action, asked.content, request);
      const call = this.#call(request, input, { user, region });
      const output = await this.#run(asked.action, input, call);
      this.#count(action, 'ok');
      return answer(asked.action, output, protocol, requestId);
    } catch (error) {
      const known = this.#errorOf(error);
      this.#count(action, known.code);
      return failure(known, protocol, requestId);
    } finally {
      this.#answering--;
    }
  }

  #run<Name extends ActionName>(action: Name, input: object, call: Call): Output<Name> | Promise<Output<Name>> {
    const handler = this.#handlers[action];
    // The input was read by the shape of this action.
    return handler(input as Parameters<typeof handler>[0], call);
  }

  #errorOf(error: unknown): SqsError {
    if (error instanceof BodyRefused) {
      if (error.why === 'too-large') return new SqsError('RequestEntityTooLarge', `The request has ${error.message}.`);
      return new SqsError('ServiceUnavailable', 'The broker takes no more at the moment.');
    }
    const known = sqsErrorOf(error);
    if (known !== undefined) return known;
    this.#parts.report('an SQS request failed', error);
    return new SqsError('InternalFailure', 'The broker failed in a way it did not expect; its log says more.');
  }

  #call(
    request: HttpRequest,
    input: { readonly QueueUrl?: unknown },
    { user, region }: { user: string | undefined; region: string | undefined },
  ): Call {
    const { options } = this.#parts;
    const host = textOf(request, 'host') ?? `${request.localHost}:${request.localPort}`;
    const url = typeof input.QueueUrl === 'string' ? input.QueueUrl : undefined;
    const address = url === undefined ? queueOfPath(request.path) : this.#addresses.of(url);
    return new Call({
      base: options['sqs.public.url'].replace(/\/+$/, '') || `http://${host}`,
      queue: url === undefined ? undefined : address?.name,
      region: address?.region ?? region ?? regionOfHost(host) ?? options['sqs.region'],
      account: address?.account ?? options['sqs.account'],
      user,
      whenClosed: (callback) => request.whenClosed(callback),
    });
  }
}

function cannotMake(name: string, error: unknown): unknown {
  const known = sqsErrorOf(error);
  if (known === undefined) return error;
  return new MillraceError('INVALID_OPTION', `the queue '${name}' cannot be made: ${known.message}`, { cause: known });
}

function textOf({ headers }: HttpRequest, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value.join(',') : value;
}

function signable(request: HttpRequest, body: Buffer): SignableRequest {
  return {
    method: request.method,
    path: request.path,
    query: request.queryText,
    header: (name) => textOf(request, name),
    body,
  };
}

function askedOf(request: HttpRequest, body: Buffer): Asked {
  const target = textOf(request, 'x-amz-target');
  if (target !== undefined) {
    if (request.method !== 'POST') throw new SqsError('UnknownOperationException', 'The JSON protocol is POST only.');
    const action = target.startsWith(TARGET_PREFIX) ? target.slice(TARGET_PREFIX.length) : '';
    return { protocol: 'json', action, content: { json: parseJson(body) } };
  }
  if (request.method !== 'POST' && request.method !== 'GET') {
    throw new SqsError('InvalidAction', `The method ${request.method} is not served here.`);
  }
  const form = parseForm(request.queryText, request.method === 'POST' ? body.toString() : '');
  const action = formText(form, 'Action');
  if (action === undefined) throw new SqsError('MissingAction', 'The request must contain the parameter Action.');
  return { protocol: 'query', action, content: { form } };
}

function unknownAction({ protocol, action }: Asked): SqsError {
  if (protocol === 'json') return new SqsError('UnknownOperationException', `The operation '${action}' is not known.`);
  return new SqsError('InvalidAction', `The action ${action} is not valid for this endpoint.`);
}

/** The request by its shape. A queue may also be named by the path. */
function inputOf(action: ActionName, content: Asked['content'], request: HttpRequest): { readonly QueueUrl?: unknown } {
  const shape: StructureShape = actions[action].input;
  const isQueueAction = Object.hasOwn(shape.members, 'QueueUrl');
  const path = isQueueAction && queueOfPath(request.path) !== undefined ? `http://path${request.path}` : undefined;
  if ('form' in content) {
    const { children } = content.form;
    if (path !== undefined && !children.has('QueueUrl')) children.set('QueueUrl', { value: path, children: new Map() });
    return readForm(shape, content.form);
  }
  const { json } = content;
  if (path === undefined || typeof json !== 'object' || json === null || 'QueueUrl' in json)
    return readJson(shape, json);
  return readJson(shape, { ...json, QueueUrl: path });
}

function answer<Name extends ActionName>(
  action: Name,
  output: Output<Name>,
  protocol: Asked['protocol'],
  requestId: string,
): HttpAnswer {
  if (protocol === 'query') {
    return { status: 200, headers: headers(XML_TYPE, requestId), body: xmlAnswer(action, output, requestId) };
  }
  const { output: shape, hasOutput } = actions[action];
  return {
    status: 200,
    headers: headers(JSON_TYPE, requestId),
    body: hasOutput ? writeJson(shape as StructureShape, output) : '',
  };
}

function failure(error: SqsError, protocol: Asked['protocol'], requestId: string): HttpAnswer {
  const { status } = error;
  if (protocol === 'query') return { status, headers: headers(XML_TYPE, requestId), body: xmlError(error, requestId) };
  return {
    status,
    headers: { ...headers(JSON_TYPE, requestId), 'x-amzn-query-error': queryErrorHeader(error) },
    body: jsonError(error),
  };
}

const headers = (type: string, requestId: string): Record<string, string> => ({
  'content-type': type,
  'x-amzn-requestid': requestId,
});
