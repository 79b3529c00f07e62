/** Who may do what. One permission model serves all doors; until users exist everybody may do everything. */

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
export type ResourceType = 'TOPIC' | 'GROUP' | 'CLUSTER' | 'TRANSACTIONAL_ID';

export interface Access {
  authorize(principal: string, operation: Operation, type: ResourceType, name: string): boolean;
}

/** The policy of a broker without users. */
export const openAccess: Access = { authorize: () => true };
