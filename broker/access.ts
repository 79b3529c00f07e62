/**
 * Who may do what, for all doors: a principal, an operation, a resource. What a user may do is written as RabbitMQ writes
 * it, in patterns for configure, write and read per vhost, and each operation stands under one of the three. Resources of
 * Kafka and SQS are those of the vhost '/', where names of topics and queues are the same.
 *
 * Kafka's door has no users yet: who comes in there is `ANONYMOUS` and may do everything.
 */
import type { Permission, TopicPermission } from './directory-state.ts';
import type { Directory } from './directory.ts';
import { compileNamePattern, type NamePattern } from './name-pattern.ts';
import { DEFAULT_VHOST } from './vhosts.ts';

/** Kafka's ACL operations (`AclOperation`). */
export type Operation =
  | 'READ'
  | 'WRITE'
  | 'CREATE'
  | 'DELETE'
  | 'ALTER'
  | 'DESCRIBE'
  | 'CLUSTER_ACTION'
  | 'DESCRIBE_CONFIGS'
  | 'ALTER_CONFIGS'
  | 'IDEMPOTENT_WRITE';

/** Kafka's resource types (`ResourceType`). The cluster's name is `kafka-cluster`. */
export type KafkaResourceType = 'TOPIC' | 'GROUP' | 'CLUSTER' | 'TRANSACTIONAL_ID';
/** And those of AMQP and SQS, which are in a vhost. */
export type ResourceType = KafkaResourceType | 'QUEUE' | 'EXCHANGE';

/** A routing key on its way through a topic exchange. */
export interface RoutedTopic {
  readonly vhost: string;
  readonly exchange: string;
  readonly routingKey: string;
}

export interface Access {
  /** `vhost`: of a queue or an exchange; default '/'. */
  authorize(principal: string, operation: Operation, type: ResourceType, name: string, vhost?: string): boolean;
  /** RabbitMQ's topic permissions: where none is set for the exchange everything is allowed. */
  authorizeTopic(principal: string, operation: 'READ' | 'WRITE', topic: RoutedTopic): boolean;
}

/** Who has not said who it is. */
export const ANONYMOUS = 'User:ANONYMOUS';
const PREFIX = 'User:';

/** A user as a principal. */
export const principalOf = (user: string): string => `${PREFIX}${user}`;

type Right = 'configure' | 'write' | 'read';

/** Which of the three an operation needs; undefined: any of them. */
const RIGHTS: Readonly<Record<Operation, Right | undefined>> = {
  READ: 'read',
  WRITE: 'write',
  IDEMPOTENT_WRITE: 'write',
  CREATE: 'configure',
  DELETE: 'configure',
  ALTER: 'configure',
  ALTER_CONFIGS: 'configure',
  CLUSTER_ACTION: 'configure',
  DESCRIBE: undefined,
  DESCRIBE_CONFIGS: undefined,
};

/** Tags of users who may see the whole broker, and change it. */
const SEERS: readonly string[] = ['administrator', 'monitoring'];
const CHANGERS: readonly string[] = ['administrator'];

export class DirectoryAccess implements Access {
  readonly #directory: Directory;
  /** Compiled patterns by fact: a fact that was replaced is another object. */
  readonly #rights = new WeakMap<Permission, Readonly<Record<Right, NamePattern>>>();
  readonly #topics = new WeakMap<TopicPermission, { readonly read: NamePattern; readonly write: NamePattern }>();

  constructor(directory: Directory) {
    this.#directory = directory;
  }

  authorize(principal: string, operation: Operation, type: ResourceType, name: string, vhost = DEFAULT_VHOST): boolean {
    if (principal === ANONYMOUS) return true;
    const user = principal.slice(PREFIX.length);
    if (type === 'CLUSTER') {
      const tags = operation.startsWith('DESCRIBE') ? SEERS : CHANGERS;
      return this.#directory.users.get(user)?.tags.some((tag) => tags.includes(tag)) === true;
    }
    // Who is deleted has none.
    const permission = this.#directory.users.permission(user, vhost);
    if (permission === undefined) return false;
    const rights = this.#compiled(permission);
    const right = RIGHTS[operation];
    if (right !== undefined) return rights[right].matches(name);
    return rights.configure.matches(name) || rights.write.matches(name) || rights.read.matches(name);
  }

  authorizeTopic(principal: string, operation: 'READ' | 'WRITE', topic: RoutedTopic): boolean {
    if (principal === ANONYMOUS) return true;
    const user = principal.slice(PREFIX.length);
    const permission = this.#directory.users.topicPermission(user, topic.vhost, topic.exchange);
    if (permission === undefined) return true;
    let patterns = this.#topics.get(permission);
    if (patterns === undefined) {
      const expanded = (pattern: string): NamePattern =>
        compileNamePattern(pattern.replaceAll('{username}', user).replaceAll('{vhost}', topic.vhost));
      patterns = { read: expanded(permission.read), write: expanded(permission.write) };
      this.#topics.set(permission, patterns);
    }
    return (operation === 'READ' ? patterns.read : patterns.write).matches(topic.routingKey);
  }

  #compiled(permission: Permission): Readonly<Record<Right, NamePattern>> {
    let rights = this.#rights.get(permission);
    if (rights === undefined) {
      const { configure, write, read } = permission;
      rights = {
        configure: compileNamePattern(configure),
        write: compileNamePattern(write),
        read: compileNamePattern(read),
      };
      this.#rights.set(permission, rights);
    }
    return rights;
  }
}
