/** Which resource a path names. Of patterns with as many parts the first that fits wins. */
import type { Resource, Resources } from './resource.ts';

interface Route {
  readonly parts: readonly string[];
  readonly resource: Resource;
}

export interface Found {
  readonly resource: Resource;
  readonly params: Readonly<Record<string, string>>;
}

export class Router {
  readonly #byLength = new Map<number, Route[]>();

  constructor(resources: Resources) {
    for (const [pattern, resource] of Object.entries(resources)) {
      const parts = pattern.split('/').slice(1);
      const sameLength = this.#byLength.get(parts.length) ?? [];
      this.#byLength.set(parts.length, sameLength);
      sameLength.push({ parts, resource });
    }
  }

  /** `path`: below /api, percent-encoded, with its leading slash. */
  find(path: string): Found | undefined {
    const given = path.split('/').slice(1);
    if (given.at(-1) === '') given.pop();
    const names = given.map(decoded);
    if (names.includes(undefined)) return undefined;
    for (const { parts, resource } of this.#byLength.get(given.length) ?? []) {
      const params: Record<string, string> = {};
      const fits = parts.every((part, index) => {
        if (!part.startsWith(':')) return part === names[index];
        params[part.slice(1)] = names[index] ?? '';
        return true;
      });
      if (fits) return { resource, params };
    }
    return undefined;
  }
}

function decoded(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    // No percent-encoding of UTF-8: it names nothing.
    return undefined;
  }
}
