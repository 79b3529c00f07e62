/**
 * Patterns over names of queues, exchanges and routing keys, as RabbitMQ's permissions and policies have them: a regular
 * expression that is found anywhere in the name; the empty one is found nowhere. Matching takes time that is linear in the
 * name (`topic-regex.ts`), so no pattern makes the broker backtrack.
 */
import { compileTopicRegex, type TopicRegex } from './topic-regex.ts';

export function compileNamePattern(pattern: string): TopicRegex {
  return compileTopicRegex(pattern === '' ? '$^' : `[\\s\\S]*(?:${pattern})[\\s\\S]*`);
}

/** INVALID_REQUEST. */
export function checkNamePattern(pattern: string): void {
  compileNamePattern(pattern);
}
