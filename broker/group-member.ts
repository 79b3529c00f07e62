/** A member of a classic group, what it asks and what it is told. Values only. */
import type { ErrorCode } from '../protocol/errors.ts';

export interface Protocol {
  readonly name: string;
  readonly metadata: Buffer;
}

export interface JoinRequest {
  readonly groupId: string;
  /** Empty: the member has none yet. */
  readonly memberId: string;
  /** Static membership (KIP-345). */
  readonly instanceId: string | null;
  readonly clientId: string;
  readonly clientHost: string;
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
  readonly protocolType: string;
  /** In order of preference. Views: what is kept is copied. */
  readonly protocols: readonly Protocol[];
  /** KIP-394: a dynamic member without id is first given one and has to come again. */
  readonly requiresKnownMember: boolean;
  /** KIP-814: a static leader that came back may be told to skip the assignment. */
  readonly canSkipAssignment: boolean;
}

export interface JoinAnswer {
  readonly error: ErrorCode;
  readonly memberId: string;
  readonly generation: number;
  readonly protocolType: string | null;
  readonly protocolName: string | null;
  readonly leaderId: string;
  readonly skipAssignment: boolean;
  /** Only the leader is told. */
  readonly members: readonly { memberId: string; groupInstanceId: string | null; metadata: Buffer }[];
}

export interface SyncRequest {
  readonly groupId: string;
  readonly generation: number;
  readonly memberId: string;
  readonly instanceId: string | null;
  /** Null before SyncGroup 5 (KIP-559): not checked. */
  readonly protocolType: string | null;
  readonly protocolName: string | null;
  readonly assignments: readonly { readonly memberId: string; readonly assignment: Buffer }[];
}

export interface SyncAnswer {
  readonly error: ErrorCode;
  readonly protocolType: string | null;
  readonly protocolName: string | null;
  readonly assignment: Buffer;
}

export interface Member {
  readonly id: string;
  readonly instanceId: string | null;
  readonly clientId: string;
  readonly clientHost: string;
  sessionTimeoutMs: number;
  rebalanceTimeoutMs: number;
  protocols: readonly Protocol[];
  assignment: Buffer;
  /** Monotonic time at which it is given up; infinity while it waits for others. */
  deadlineMs: number;
  /** Has not been told its id yet, so it cannot send heartbeats. */
  isNew: boolean;
  /** Who waits for its JoinGroup; several after a retry on another connection. All are answered alike. */
  joins: ((answer: JoinAnswer) => void)[];
  syncs: ((answer: SyncAnswer) => void)[];
}

export const NO_BYTES: Buffer = Buffer.alloc(0);

export function refusedJoin(error: ErrorCode, memberId: string): JoinAnswer {
  return {
    error,
    memberId,
    generation: -1,
    protocolType: null,
    protocolName: null,
    leaderId: '',
    skipAssignment: false,
    members: [],
  };
}

export function refusedSync(error: ErrorCode): SyncAnswer {
  return { error, protocolType: null, protocolName: null, assignment: NO_BYTES };
}

/** About the memory a member takes. */
export function memberBytes(member: Member): number {
  return (
    256 + 2 * member.id.length + member.clientId.length + protocolsBytes(member.protocols) + member.assignment.length
  );
}

export function protocolsBytes(protocols: readonly Protocol[]): number {
  let sizeBytes = 0;
  for (const { name, metadata } of protocols) sizeBytes += 64 + name.length + metadata.length;
  return sizeBytes;
}

/** Protocols to keep: the bytes copied into one buffer, a name named twice only once. */
export function ownProtocols(protocols: readonly Protocol[]): Protocol[] {
  const first = new Map<string, Buffer>();
  for (const { name, metadata } of protocols) if (!first.has(name)) first.set(name, metadata);
  // Copy: what came is a view of the request.
  const bytes = Buffer.concat([...first.values()]);
  let at = 0;
  return [...first].map(([name, { length }]) => {
    at += length;
    return { name, metadata: bytes.subarray(at - length, at) };
  });
}

export function hasSameProtocols(member: Member, protocols: readonly Protocol[]): boolean {
  return isSameProtocols(member.protocols, protocols);
}

export function isSameProtocols(a: readonly Protocol[], b: readonly Protocol[]): boolean {
  return (
    a.length === b.length &&
    a.every(({ name, metadata }, index) => name === b[index].name && metadata.equals(b[index].metadata))
  );
}

export function metadataFor(member: Member, protocolName: string | null): Buffer {
  return member.protocols.find(({ name }) => name === protocolName)?.metadata ?? NO_BYTES;
}
