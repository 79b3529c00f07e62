/**
 * What a path of the API is: who may ask, whether it is there, and what each method does. `rest.ts` runs a resource the
 * way RabbitMQ's web server runs its own, so status codes follow from these few functions.
 */
import type { HttpRequest } from '../../broker/http-server.ts';
import type { User } from '../../broker/users.ts';

/** One request, after its user was let in. */
export interface Call {
  readonly request: HttpRequest;
  /** The variable parts of the path, decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly user: User;
  /** For the connection that acts for the user. */
  readonly password: string;
  /** Object in the body; the names in `required` must be there. An empty body is an empty object. 400. */
  json(required?: readonly string[]): Promise<Readonly<Record<string, unknown>>>;
}

/**
 * `anybody` needs no password. Everybody else needs a password and one of RabbitMQ's four tags: `user` any of them;
 * `vhost` access to the vhost of the path, too, unless an administrator; `visible-vhost` the same, but monitoring sees all
 * vhosts; `monitor` the tag monitoring or administrator; `policymaker` the tag and the vhost; `global` the tag; `admin`.
 * A function names the user that the thing belongs to, who may see it, too.
 */
export type Allowed =
  | 'anybody'
  | 'user'
  | 'vhost'
  | 'visible-vhost'
  | 'monitor'
  | 'policymaker'
  | 'global'
  | 'admin'
  | ((params: Readonly<Record<string, string>>) => string | undefined);

export interface Resource {
  readonly allowed: Allowed;
  /** Default: it is. Decides between 200 and 404, and between 204 and 201 for PUT. */
  exists?(call: Call): boolean;
  /** Answers JSON. */
  get?(call: Call): unknown;
  put?(call: Call): Promise<void>;
  remove?(call: Call): Promise<void>;
  /** Answers JSON, or nothing (204), or where the new thing is (201). */
  post?(call: Call): Promise<unknown>;
  /** What is said when a POST goes to something that is not there. */
  readonly missing?: string;
}

/** By path: parts that begin with ':' are variable. */
export type Resources = Readonly<Record<string, Resource>>;

/** The answer of a POST that made something. */
export class Created {
  readonly location: string;
  constructor(location: string) {
    this.location = location;
  }
}

/** An answer that is not JSON, or has another status than its method. */
export class Raw {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
  constructor(status: number, type: string, body: string, headers: Readonly<Record<string, string>> = {}) {
    this.status = status;
    this.type = type;
    this.body = body;
    this.headers = headers;
  }
}

/** Ends a request with a body of `error` and `reason`. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  readonly error: string;
  /** Text, or a list as RabbitMQ writes a tuple. */
  readonly reason: unknown;

  constructor(status: number, error: string, reason: unknown) {
    super(`${status} ${error}: ${JSON.stringify(reason)}`);
    this.status = status;
    this.error = error;
    this.reason = reason;
  }
}

export const badRequest = (reason: unknown): ApiError => new ApiError(400, 'bad_request', reason);
export const notFound = (reason: string): ApiError => new ApiError(404, 'not_found', reason);
export const notAuthorised = (reason: string): ApiError => new ApiError(401, 'not_authorised', reason);
