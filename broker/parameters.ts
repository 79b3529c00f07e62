/**
 * Parameters of components (per vhost) and of the whole broker: objects that RabbitMQ's plugins act on, such as upstreams
 * of a federation. Here they are kept and given back, and nothing else happens.
 */
import { MillraceError } from '../protocol/errors.ts';
import { type GlobalParameter, type Json, keyOf, type Parameter } from './directory-state.ts';
import type { Directory } from './directory.ts';
import { checkName } from './vhosts.ts';

/** They have stores of their own. */
const OWN_STORES: readonly string[] = ['policy', 'operator_policy', 'vhost-limits', 'user-limits'];

export class Parameters {
  readonly #directory: Directory;

  constructor(directory: Directory) {
    this.#directory = directory;
  }

  /** By component, vhost and name; those of one component or vhost, or all. */
  list(of: { component?: string; vhost?: string } = {}): readonly Parameter[] {
    return [...this.#directory.table('parameters')]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, parameter]) => parameter)
      .filter(({ component, vhost }) => component === (of.component ?? component) && vhost === (of.vhost ?? vhost));
  }
  get(component: string, vhost: string, name: string): Parameter | undefined {
    return this.#directory.table('parameters').get(keyOf(component, vhost, name));
  }
  /** VHOST_NOT_FOUND, INVALID_REQUEST. Answers whether it is new. */
  async put(parameter: Parameter): Promise<boolean> {
    const { component, vhost, name } = parameter;
    this.#directory.vhosts.required(vhost);
    checkName('component', component);
    checkName('parameter', name);
    if (OWN_STORES.includes(component)) {
      throw new MillraceError('INVALID_REQUEST', `${component} ${name} is not kept as a parameter`);
    }
    const key = keyOf(component, vhost, name);
    const isNew = !this.#directory.table('parameters').has(key);
    await this.#directory.change([{ table: 'parameters', key, fact: parameter }]);
    return isNew;
  }
  /** False: it was not there. */
  async delete(component: string, vhost: string, name: string): Promise<boolean> {
    if (this.get(component, vhost, name) === undefined) return false;
    await this.#directory.change([{ table: 'parameters', key: keyOf(component, vhost, name), fact: undefined }]);
    return true;
  }

  listGlobal(): readonly GlobalParameter[] {
    return [...this.#directory.table('globalParameters').values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }
  getGlobal(name: string): GlobalParameter | undefined {
    return this.#directory.table('globalParameters').get(name);
  }
  /** INVALID_REQUEST. Answers whether it is new. */
  async putGlobal(name: string, value: Json): Promise<boolean> {
    checkName('parameter', name);
    const isNew = this.getGlobal(name) === undefined;
    await this.#directory.change([{ table: 'globalParameters', key: name, fact: { name, value } }]);
    return isNew;
  }
  /** False: it was not there. */
  async deleteGlobal(name: string): Promise<boolean> {
    if (this.getGlobal(name) === undefined) return false;
    await this.#directory.change([{ table: 'globalParameters', key: name, fact: undefined }]);
    return true;
  }
}
