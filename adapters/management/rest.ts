/**
 * One request of the API from its path to its answer, in the order in which RabbitMQ's web server decides: is there such a
 * path, such a method, who asks, may they, is it there, and only then what the method does. Bodies are read only for who may
 * send them.
 */
import { BodyRefused, type HttpAnswer, type HttpRequest } from '../../broker/http-server.ts';
import { MillraceError } from '../../protocol/errors.ts';
import type { Directory } from '../../broker/directory.ts';
import { authenticated, checkAllowed } from './authorize.ts';
import { shownFact, type Fact } from './listing.ts';
import { ApiError, badRequest, type Call, Created, notFound, Raw, type Resource } from './resource.ts';
import type { Router } from './router.ts';

const JSON_TYPE = 'application/json';
/** Which error of the broker is which answer; all others are the request's fault. */
const UNAVAILABLE = new Set(['KAFKA_STORAGE_ERROR', 'STOPPING']);

export interface RestParts {
  readonly router: Router;
  readonly directory: Directory;
  readonly bodyBytesMax: number;
  /** Something failed that should not. */
  readonly report: (message: string, error: unknown) => void;
}

/** `path`: below /api. */
export async function answerRest(request: HttpRequest, path: string, parts: RestParts): Promise<HttpAnswer> {
  try {
    return await run(request, path, parts);
  } catch (error) {
    return failure(error, parts);
  }
}

function failure(error: unknown, { report }: RestParts): HttpAnswer {
  if (error instanceof ApiError) return problem(error);
  if (error instanceof BodyRefused) {
    if (error.why === 'busy') return problem(new ApiError(503, 'service_unavailable', error.message));
    return problem(badRequest('Exceeded HTTP request body size limit'));
  }
  if (error instanceof MillraceError) {
    if (UNAVAILABLE.has(error.code)) return problem(new ApiError(503, 'service_unavailable', error.message));
    return problem(badRequest(error.message));
  }
  report('a request of the management API failed', error);
  return problem(
    new ApiError(500, 'internal_server_error', 'the broker failed in a way it did not expect; its log says more'),
  );
}

function problem({ status, error, reason }: ApiError): HttpAnswer {
  return json(status, { error, reason });
}

function json(status: number, value: unknown): HttpAnswer {
  return { status, headers: headers({ 'content-type': JSON_TYPE }), body: JSON.stringify(value) };
}

function headers(more: Readonly<Record<string, string>> = {}): Record<string, string> {
  return { 'cache-control': 'no-cache', vary: 'accept, accept-encoding, origin', ...more };
}

const MISSING = new ApiError(404, 'Object Not Found', 'Not Found');

async function run(request: HttpRequest, path: string, parts: RestParts): Promise<HttpAnswer> {
  const { directory, router } = parts;
  const found = router.find(path);
  if (found === undefined) throw MISSING;
  const { resource, params } = found;
  const allow = methodsOf(resource);
  if (request.method === 'OPTIONS') return { status: 200, headers: headers({ allow: allow.join(', ') }) };
  if (!allow.includes(request.method)) return { status: 405, headers: headers({ allow: allow.join(', ') }) };
  if (resource.allowed === 'anybody') return act(resource, callOf(request, params, NOBODY, parts), directory);
  const who = authenticated(request, directory);
  if (who instanceof Raw) return raw(who);
  checkAllowed(resource.allowed, { user: who.user, params, method: request.method }, directory);
  return act(resource, callOf(request, params, who, parts), directory);
}

const NOBODY = { user: { name: '', tags: [], limits: {} }, password: '' };

function methodsOf({ get, put, remove, post }: Resource): readonly string[] {
  return [
    ...(get ? ['HEAD', 'GET'] : []),
    ...(put ? ['PUT'] : []),
    ...(remove ? ['DELETE'] : []),
    ...(post ? ['POST'] : []),
    'OPTIONS',
  ];
}

function missing({ missing: reason }: Resource, { params }: Call, { vhosts }: Directory): ApiError {
  if (reason === undefined) return MISSING;
  return notFound(vhosts.get(params['vhost']) === undefined ? 'vhost_not_found' : reason);
}

async function act(resource: Resource, call: Call, directory: Directory): Promise<HttpAnswer> {
  const isThere = resource.exists?.(call) ?? true;
  switch (call.request.method) {
    case 'PUT':
      await resource.put?.(call);
      return { status: isThere ? 204 : 201, headers: headers() };
    case 'POST': {
      if (!isThere) throw missing(resource, call, directory);
      const made = await resource.post?.(call);
      if (made === undefined) return { status: 204, headers: headers() };
      if (made instanceof Raw) return raw(made);
      return made instanceof Created ? { status: 201, headers: headers({ location: made.location }) } : json(200, made);
    }
    case 'DELETE':
      if (!isThere) throw MISSING;
      await resource.remove?.(call);
      return { status: 204, headers: headers() };
    default: {
      if (!isThere) throw MISSING;
      const value = await resource.get?.(call);
      if (value instanceof Raw) return raw(value);
      // A list has been reduced to its columns by now.
      const isFact = typeof value === 'object' && value !== null && !Array.isArray(value) && !('items' in value);
      return json(200, isFact ? shownFact(value as Fact, call.request.query) : value);
    }
  }
}

function raw({ status, type, body, headers: more }: Raw): HttpAnswer {
  return { status, headers: headers({ 'content-type': type, ...more }), body };
}

function callOf(
  request: HttpRequest,
  params: Readonly<Record<string, string>>,
  { user, password }: Pick<Call, 'user' | 'password'>,
  { bodyBytesMax }: RestParts,
): Call {
  return {
    request,
    params,
    user,
    password,
    async json(required = []) {
      const object = parsed(await request.body(bodyBytesMax));
      const missing = required.filter((name) => object[name] === undefined);
      if (missing.length > 0) throw badRequest(`[${missing.map((name) => `{key_missing,${name}}`).join(',')}]`);
      return object;
    },
  };
}

/** JSON of a body that must be an object. */
export function parsed(body: Buffer): Readonly<Record<string, unknown>> {
  const text = body.toString();
  if (text === '' || text === 'null' || text === 'undefined') return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw badRequest('not_json');
  }
  if (typeof value === 'string') {
    throw badRequest('invalid payload: the request body JSON-decoded to a string. Is the input doubly-JSON-encoded?');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw badRequest('not_json');
  return value as Record<string, unknown>;
}
