/** One request as handlers of actions see it. Made by `door.ts`. */
import { arnOf } from './addresses.ts';

export interface CallInit {
  /** What URLs of queues begin with: `http://host:port`. */
  readonly base: string;
  /** Name of the queue of its URL; undefined: it has none. */
  readonly queue: string | undefined;
  readonly region: string;
  readonly account: string;
  /** Name of the user who signed it; undefined: signatures are not asked for. */
  readonly user: string | undefined;
  /** Calls back once, when the peer goes away before it has an answer; answers how to withdraw. */
  readonly whenClosed: (callback: () => void) => () => void;
}

export class Call implements CallInit {
  readonly base: string;
  readonly queue: string | undefined;
  readonly region: string;
  readonly account: string;
  readonly user: string | undefined;
  readonly whenClosed: CallInit['whenClosed'];

  constructor(init: CallInit) {
    this.base = init.base;
    this.queue = init.queue;
    this.region = init.region;
    this.account = init.account;
    this.user = init.user;
    this.whenClosed = init.whenClosed;
  }

  urlOf(queue: string): string {
    return `${this.base}/${this.account}/${encodeURIComponent(queue)}`;
  }
  arnOf(queue: string): string {
    return arnOf(queue, this.region, this.account);
  }
}
