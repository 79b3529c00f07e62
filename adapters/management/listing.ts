/**
 * Lists as the API gives them: sorted by a field that may be nested (`sort`, `sort_reverse`), cut into pages (`page`,
 * `page_size`, `name`, `use_regex`) and reduced to some fields (`columns`).
 */
import { compileNamePattern } from '../../broker/name-pattern.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { ApiError, badRequest, Raw } from './resource.ts';

export type Fact = Readonly<Record<string, unknown>>;

const PAGE_SIZE_DEFAULT = 100;
const PAGE_SIZE_MAX = 500;

export interface ListOptions {
  /** Fields to sort by, the first one first; after the one that is asked for. */
  readonly sorts: readonly string[];
  /** Whether `page` is heeded; then fields that are not shown can be sorted by, too. Default false. */
  readonly isPaged?: boolean;
}

/** Given as they are, whatever is asked of what is in them. */
const WHOLE = new Set(['arguments', 'client_properties', 'definition', 'effective_policy_definition', 'metadata']);

interface Page {
  readonly page: number;
  readonly pageSize: number;
  readonly name: string;
  readonly isRegex: boolean;
}

/** The facts as the query wants them: a list, or one page with counts around it. */
export function listed(facts: readonly Fact[], query: URLSearchParams, { sorts, isPaged }: ListOptions): unknown {
  if (isPaged !== true) {
    const shown = facts.map((fact) => shownFact(fact, query));
    return sortedBy(shown, (fact) => fact, { sorts, query });
  }
  const page = pageOf(query);
  const sorted = sortedBy(facts, (fact) => fact, { sorts, query });
  if (page === undefined) return sorted.map((fact) => shownFact(fact, query));
  const { items, around } = paged(sorted, (fact) => fact, page);
  return { ...around, items: items.map((fact) => shownFact(fact, query)) };
}

/** A fact that costs something to make. */
export interface LazyFact {
  /** What is known of it anyway. */
  readonly plain: Fact;
  whole(): Fact;
}

/** Facts that are made in one go, before others have their turn. */
const GO = 100;

/**
 * As `listed` with pages, for long lists: only what is shown is made whole, a few at a time, and written at once. `pause`
 * lets others have their turn.
 */
export async function listedLazily(
  facts: readonly LazyFact[],
  query: URLSearchParams,
  { sorts, pause }: { sorts: readonly string[]; pause: () => Promise<void> },
): Promise<Raw> {
  const page = pageOf(query);
  const isPlain = facts.length === 0 || isIn(facts[0].plain, query.get('sort'));
  const known = isPlain ? facts : await wholeFacts(facts, pause);
  const sorted = sortedBy(known, ({ plain }) => plain, { sorts, query });
  const { items, around } =
    page === undefined ? { items: sorted, around: undefined } : paged(sorted, ({ plain }) => plain, page);
  const pieces: string[] = [];
  for (let from = 0; from < items.length; from += GO) {
    if (from > 0) await pause();
    const shown = items.slice(from, from + GO).map((fact) => shownFact(fact.whole(), query));
    pieces.push(JSON.stringify(shown).slice(1, -1));
  }
  const list = `[${pieces.join(',')}]`;
  if (around === undefined) return new Raw(200, 'application/json', list);
  return new Raw(200, 'application/json', `${JSON.stringify(around).slice(0, -1)},"items":${list}}`);
}

async function wholeFacts(facts: readonly LazyFact[], pause: () => Promise<void>): Promise<LazyFact[]> {
  const made: LazyFact[] = [];
  for (const fact of facts) {
    if (made.length % GO === GO - 1) await pause();
    const whole = fact.whole();
    made.push({ plain: whole, whole: () => whole });
  }
  return made;
}

const isIn = (fact: Fact, sort: string | null): boolean =>
  sort === null || sort === '' || sort.split('.', 1)[0] in fact;

function paged<T>(sorted: readonly T[], factOf: (item: T) => Fact, page: Page): { items: readonly T[]; around: Fact } {
  const isWanted = page.name === '' ? undefined : nameFilter(page);
  const filtered = isWanted === undefined ? sorted : sorted.filter((item) => isWanted(factOf(item)));
  const from = (page.page - 1) * page.pageSize;
  if (from > filtered.length) {
    const reason = `Page out of range, page: ${page.page} page size: ${page.pageSize}, len: ${filtered.length}`;
    throw new ApiError(400, 'page_out_of_range', reason);
  }
  const items = filtered.slice(from, from + page.pageSize);
  const around = {
    filtered_count: filtered.length,
    item_count: items.length,
    page: page.page,
    page_count: Math.floor((filtered.length + page.pageSize - 1) / page.pageSize),
    page_size: page.pageSize,
    total_count: sorted.length,
  };
  return { items, around };
}

/** One fact with the fields that `columns` asks for. */
export function shownFact(fact: Fact, query: URLSearchParams): Fact {
  const columns = query.get('columns');
  if (columns === null) return fact;
  const paths = columns
    .split(',')
    .filter((column) => column !== '')
    .map((column) => column.split('.').filter((part) => part !== ''));
  return reduced(fact, paths) as Fact;
}

function reduced(value: unknown, paths: readonly (readonly string[])[]): unknown {
  if (Array.isArray(value)) return value.map((each) => reduced(each, paths));
  if (!isObject(value)) return value;
  const kept: Record<string, unknown> = {};
  for (const [name, inner] of Object.entries(value)) {
    const below = paths.filter(([first]) => first === name).map(([, ...rest]) => rest);
    if (below.length === 0) continue;
    kept[name] = WHOLE.has(name) || below.some((rest) => rest.length === 0) ? inner : reduced(inner, below);
  }
  return kept;
}

function pageOf(query: URLSearchParams): Page | undefined {
  const page = whole(query.get('page'));
  const pageSize = whole(query.get('page_size'));
  if (page === undefined) return undefined;
  if (page < 1 || (pageSize !== undefined && (pageSize < 1 || pageSize > PAGE_SIZE_MAX))) {
    throw new ApiError(
      400,
      'invalid_pagination_parameters',
      `Invalid pagination parameters: page number ${page}, page size ${pageSize ?? 'undefined'}`,
    );
  }
  return {
    page,
    pageSize: pageSize ?? PAGE_SIZE_DEFAULT,
    name: query.get('name') ?? '',
    isRegex: query.get('use_regex') === 'true',
  };
}

function whole(text: string | null): number | undefined {
  if (text === null) return undefined;
  if (/^[+-]?\d+$/.test(text) && Number.isSafeInteger(Number(text))) return Number(text);
  throw badRequest('Pagination parameters are invalid');
}

/** Regular expressions run in time linear in the name, whoever wrote them. */
function nameFilter({ name, isRegex }: Page): (fact: Fact) => boolean {
  const nameOf = (fact: Fact): string => String(fact['name'] ?? '');
  if (!isRegex) {
    const wanted = name.toLowerCase();
    return (fact) => nameOf(fact).toLowerCase().includes(wanted);
  }
  try {
    const pattern = compileNamePattern(`(?i)${name}`);
    return (fact) => pattern.matches(nameOf(fact));
  } catch (error) {
    if (error instanceof MillraceError) throw badRequest(error.message);
    throw error;
  }
}

function sortedBy<T>(
  items: readonly T[],
  factOf: (item: T) => Fact,
  { sorts: defaults, query }: { sorts: readonly string[]; query: URLSearchParams },
): readonly T[] {
  const asked = query.get('sort');
  const sorts = asked === null || asked === '' ? defaults : [asked, ...defaults.filter((each) => each !== asked)];
  const keyed = items.map((item) => {
    const fact = factOf(item);
    return { item, keys: sorts.map((sort) => nested(fact, sort)) };
  });
  keyed.sort((a, b) => {
    for (let index = 0; index < sorts.length; index++) {
      const order = compareTerms(a.keys[index], b.keys[index]);
      if (order !== 0) return order;
    }
    return 0;
  });
  if (query.get('sort_reverse') === 'true') keyed.reverse();
  return keyed.map(({ item }) => item);
}

/** What is not there counts as 0. */
function nested(fact: Fact, path: string): unknown {
  let value: unknown = fact;
  for (const part of path.split('.')) value = isObject(value) ? value[part] : undefined;
  return value ?? 0;
}

/** The order of Erlang's terms: numbers before truth values before objects and lists before texts. */
function compareTerms(one: unknown, other: unknown): number {
  const ranks = rank(one) - rank(other);
  if (ranks !== 0) return ranks;
  if (typeof one === 'number' && typeof other === 'number') return one - other;
  const [first, second] = typeof one === 'object' ? [JSON.stringify(one), JSON.stringify(other)] : [one, other];
  const [a, b] = [String(first), String(second)];
  return a < b ? -1 : a > b ? 1 : 0;
}

const rank = (value: unknown): number =>
  typeof value === 'number' ? 0 : typeof value === 'boolean' ? 1 : typeof value === 'object' ? 2 : 3;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
