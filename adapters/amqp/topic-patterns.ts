/**
 * The binding keys of a topic exchange as a tree of words, so that a routing key is matched in time that depends on its own
 * length and not on how many bindings there are. Words are separated by '.'; `*` stands for one word, `#` for any number
 * of them, none included (AMQP 0-9-1, section 3.1.3.3).
 *
 * Whatever the patterns are, a match looks at each node at most once for each word of the key: several `#` in one pattern
 * could otherwise be matched in exponentially many ways.
 */

interface Node<Value> {
  readonly parent: Node<Value> | undefined;
  readonly word: string;
  readonly words: Map<string, Node<Value>>;
  /** Of patterns that end here; a value may be here several times under other arguments, told apart by the caller. */
  readonly values: Set<Value>;
  /** Below `#` somewhere: only then can a match come here by several ways. */
  readonly isBelowHash: boolean;
  readonly id: number;
}

const ANY_WORD = '*';
const ANY_WORDS = '#';

export class TopicPatterns<Value> {
  #nextId = 1;
  readonly #root: Node<Value> = {
    parent: undefined,
    word: '',
    words: new Map(),
    values: new Set(),
    isBelowHash: false,
    id: 0,
  };

  add(pattern: string, value: Value): void {
    let node = this.#root;
    for (const word of pattern.split('.')) {
      let child = node.words.get(word);
      if (child === undefined) {
        const isBelowHash = node.isBelowHash || word === ANY_WORDS;
        child = { parent: node, word, words: new Map(), values: new Set(), isBelowHash, id: this.#nextId++ };
        node.words.set(word, child);
      }
      node = child;
    }
    node.values.add(value);
  }

  delete(pattern: string, value: Value): void {
    let node: Node<Value> | undefined = this.#root;
    for (const word of pattern.split('.')) node = node?.words.get(word);
    node?.values.delete(value);
    while (node?.parent !== undefined && node.values.size === 0 && node.words.size === 0) {
      node.parent.words.delete(node.word);
      node = node.parent;
    }
  }

  /** Calls `found` for the values of all patterns that match; for one that was added under two of them perhaps twice. */
  match(routingKey: string, found: (value: Value) => void): void {
    const words = routingKey.split('.');
    const seen = new Set<number>();
    const visit = (node: Node<Value>, index: number): void => {
      if (node.isBelowHash) {
        const place = node.id * (words.length + 1) + index;
        if (seen.has(place)) return;
        seen.add(place);
      }
      if (node.words.size > 0) {
        const hash = node.words.get(ANY_WORDS);
        if (hash !== undefined) for (let rest = index; rest <= words.length; rest++) visit(hash, rest);
        if (index < words.length) {
          const star = node.words.get(ANY_WORD);
          if (star !== undefined) visit(star, index + 1);
          const word = words[index];
          const exact = word === ANY_WORD || word === ANY_WORDS ? undefined : node.words.get(word);
          if (exact !== undefined) visit(exact, index + 1);
        }
      }
      if (index === words.length) for (const value of node.values) found(value);
    };
    visit(this.#root, 0);
  }
}
