/**
 * Reads `methods.def` (the language is explained at its top). Used by the generator and by the test that compares the
 * definitions with another implementation's.
 */

export const ARGUMENT_TYPES = ['octet', 'short', 'long', 'longlong', 'shortstr', 'longstr', 'table', 'bit'] as const;
export type ArgumentType = (typeof ARGUMENT_TYPES)[number];

export interface Argument {
  readonly name: string;
  readonly type: ArgumentType;
  /** Deprecated: skipped when read, zero when written. */
  readonly isReserved: boolean;
  /** As written after `=`; null: a writer must give it. */
  readonly defaultText: string | null;
}

export interface MethodDefinition {
  /** As the specification writes it: `queue.declare-ok`. */
  readonly name: string;
  /** Class id in the upper, method id in the lower 16 bits. */
  readonly id: number;
  readonly sender: 'client' | 'server' | 'both';
  readonly hasContent: boolean;
  readonly arguments: readonly Argument[];
}

export function parseMethods(text: string): MethodDefinition[] {
  const methods: (MethodDefinition & { arguments: Argument[] })[] = [];
  let className = '';
  let classId = 0;
  text.split('\n').forEach((line, index) => {
    if (line.trim() === '' || line.startsWith('#')) return;
    const fail = (): never => {
      throw new Error(`methods.def:${index + 1}: cannot read '${line.trim()}'`);
    };
    const words = line.trim().split(/\s+/);
    const depth = line.length - line.trimStart().length;
    if (depth === 0) {
      const [keyword, name, id] = words;
      if (keyword !== 'class' || !/^\d+$/.test(id ?? '')) fail();
      className = name;
      classId = Number(id);
    } else if (depth === 2) {
      const [name, id, sender, content] = words;
      if (!/^\d+$/.test(id ?? '') || (content !== undefined && content !== 'content')) fail();
      if (sender !== 'client' && sender !== 'server' && sender !== 'both') return fail();
      methods.push({
        name: `${className}.${name}`,
        id: classId * 65_536 + Number(id),
        sender,
        hasContent: content === 'content',
        arguments: [],
      });
    } else {
      const [name, type, equals, ...rest] = words;
      const known = ARGUMENT_TYPES.find((one) => one === type);
      const method = methods.at(-1);
      if (known === undefined || method === undefined || (equals !== undefined && equals !== '=')) return fail();
      method.arguments.push({
        name,
        type: known,
        isReserved: name.startsWith('reserved'),
        defaultText: equals === undefined ? null : rest.join(' '),
      });
    }
  });
  return methods;
}
