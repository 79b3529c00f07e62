/**
 * The shapes of SQS's service model as values: what a member of a request or answer is, what it is called in the query
 * protocol, and the TypeScript type that follows. `actions.ts` is written in them; `json.ts`, `form.ts` and `xml.ts` read
 * and write by them.
 */

export interface StringShape {
  readonly type: 'string';
}
export interface IntegerShape {
  readonly type: 'integer' | 'long';
}
export interface BooleanShape {
  readonly type: 'boolean';
}
/** Base64 on the wire of both protocols. */
export interface BlobShape {
  readonly type: 'blob';
}
/** `element`: its name in the query protocol, where lists are flattened: `AttributeName.1`. */
export interface ListShape {
  readonly type: 'list';
  readonly member: Shape;
  readonly element: string;
}
/** In the query protocol `Tag.1.Key` and `Tag.1.Value`. */
export interface MapShape {
  readonly type: 'map';
  readonly value: Shape;
  readonly element: string;
  readonly keyName: string;
}
export interface StructureShape {
  readonly type: 'structure';
  readonly members: Readonly<Record<string, Member>>;
}
export type Shape = StringShape | IntegerShape | BooleanShape | BlobShape | ListShape | MapShape | StructureShape;

export interface Member {
  readonly shape: Shape;
  readonly isRequired: boolean;
}

/** What a shape is in memory. Maps keep the order of the request. */
export type ValueOf<S> = S extends StringShape
  ? string
  : S extends IntegerShape
    ? number
    : S extends BooleanShape
      ? boolean
      : S extends BlobShape
        ? Buffer
        : S extends { type: 'list'; member: infer M }
          ? readonly ValueOf<M>[]
          : S extends { type: 'map'; value: infer V }
            ? ReadonlyMap<string, ValueOf<V>>
            : S extends { type: 'structure'; members: infer Ms }
              ? StructureValue<Ms>
              : never;

type StructureValue<Ms> = {
  readonly [K in keyof Ms as Ms[K] extends { isRequired: true } ? K : never]: ValueOf<ShapeOf<Ms[K]>>;
} & {
  readonly [K in keyof Ms as Ms[K] extends { isRequired: true } ? never : K]?: ValueOf<ShapeOf<Ms[K]>>;
};
type ShapeOf<M> = M extends { shape: infer S } ? S : never;

export const string = { type: 'string' } as const;
export const integer = { type: 'integer' } as const;
export const long = { type: 'long' } as const;
export const boolean = { type: 'boolean' } as const;
export const blob = { type: 'blob' } as const;

export const list = <const M extends Shape>(member: M, element: string) => ({ type: 'list', member, element }) as const;
export const map = <const V extends Shape>(value: V, element: string, keyName: 'Name' | 'Key') =>
  ({ type: 'map', value, element, keyName }) as const;

type OptionalMembers<Ms extends Record<string, Shape>> = {
  readonly [K in keyof Ms]: { readonly shape: Ms[K]; readonly isRequired: false };
};
type RequiredMembers<Ms extends Record<string, Shape>> = {
  readonly [K in keyof Ms]: { readonly shape: Ms[K]; readonly isRequired: true };
};

/** A structure with members that must be there and members that may be. */
export function structure<const R extends Record<string, Shape>, const O extends Record<string, Shape>>(
  required: R,
  optional: O,
): { readonly type: 'structure'; readonly members: RequiredMembers<R> & OptionalMembers<O> } {
  const members: Record<string, Member> = {};
  for (const [name, shape] of Object.entries(required)) members[name] = { shape, isRequired: true };
  for (const [name, shape] of Object.entries(optional)) members[name] = { shape, isRequired: false };
  // Built name by name from what the type says.
  return { type: 'structure', members: members as RequiredMembers<R> & OptionalMembers<O> };
}
