/** The bit sets of operations a principal may do, as Metadata, DescribeCluster and DescribeGroups answer them (KIP-430). */
import type { KafkaResourceType, Operation } from '../access.ts';

/** `AclOperation` codes of Kafka. */
const CODES: Readonly<Record<Operation, number>> = {
  READ: 3,
  WRITE: 4,
  CREATE: 5,
  DELETE: 6,
  ALTER: 7,
  DESCRIBE: 8,
  CLUSTER_ACTION: 9,
  DESCRIBE_CONFIGS: 10,
  ALTER_CONFIGS: 11,
  IDEMPOTENT_WRITE: 12,
};

/** Which operations exist for a type of resource. */
const OPERATIONS: Readonly<Record<KafkaResourceType, readonly Operation[]>> = {
  TOPIC: ['READ', 'WRITE', 'CREATE', 'DELETE', 'ALTER', 'DESCRIBE', 'DESCRIBE_CONFIGS', 'ALTER_CONFIGS'],
  GROUP: ['READ', 'DELETE', 'DESCRIBE', 'DESCRIBE_CONFIGS', 'ALTER_CONFIGS'],
  CLUSTER: ['CREATE', 'ALTER', 'DESCRIBE', 'CLUSTER_ACTION', 'DESCRIBE_CONFIGS', 'ALTER_CONFIGS', 'IDEMPOTENT_WRITE'],
  TRANSACTIONAL_ID: ['WRITE', 'DESCRIBE'],
};

/** Name of the one resource of type CLUSTER. */
export const CLUSTER = 'kafka-cluster';

export interface Allowing {
  allows(operation: Operation, type: KafkaResourceType, name: string): boolean;
}

export function authorizedOperations(call: Allowing, type: KafkaResourceType, name: string): number {
  let bits = 0;
  for (const operation of OPERATIONS[type]) if (call.allows(operation, type, name)) bits |= 1 << CODES[operation];
  return bits;
}
