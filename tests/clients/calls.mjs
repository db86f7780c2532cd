// One right call for every tool, in an order that works on one server: the real clients go through this list.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
export const hutch = path.resolve(process.env.HUTCH ?? path.join(here, '../../build/src/hutch'));
if (!existsSync(hutch)) throw new Error(`no binary ${hutch}: build first or set $HUTCH`);

// `text` must be in what the model sees, `field` in structuredContent.
export const calls = [
  { tool: 'sandbox_list_profiles', args: {}, text: /default/, field: 'profiles' },
  { tool: 'sandbox_create', args: { name: 'real-client', memory: '256m', labels: { by: 'test' } }, text: /sbx-/, field: 'sandbox_id' },
  { tool: 'sandbox_list', args: {}, text: /sbx-/, field: 'sandboxes' },
  { tool: 'sandbox_write_file', args: { sandbox_id: 'real-client', path: 'a.py', content: 'print(6 * 7)\n' }, text: /a\.py/, field: 'sha256' },
  { tool: 'sandbox_edit_file', args: { sandbox_id: 'real-client', path: 'a.py', edits: [{ old_str: '6 * 7', new_str: '6 * 9' }] }, text: /6 \* 9/, field: 'replacements' },
  { tool: 'sandbox_read_file', args: { sandbox_id: 'real-client', path: 'a.py' }, text: /6 \* 9/, field: 'total_lines' },
  { tool: 'sandbox_list_files', args: { sandbox_id: 'real-client' }, text: /a\.py/, field: 'entries' },
  { tool: 'sandbox_exec', args: { sandbox_id: 'real-client', command: 'python3 a.py' }, text: /54/, field: 'exit_code' },
  { tool: 'sandbox_eval', args: { sandbox_id: 'real-client', code: '2 ** 10', language: 'python' }, text: /1024/, field: 'end' },
  { tool: 'sandbox_process', args: { sandbox_id: 'real-client', action: 'list' }, text: /no background processes/, field: 'processes' },
  { tool: 'sandbox_info', args: { sandbox_id: 'real-client' }, text: /real-client|sbx-/, field: 'limits' },
  { tool: 'sandbox_update', args: { sandbox_id: 'real-client', ttl_s: 900 }, text: /sbx-/, field: 'expires_at' },
  { tool: 'sandbox_port_url', args: { sandbox_id: 'real-client', port: 8000 }, text: /localhost/, field: 'path_url' },
  { tool: 'sandbox_exec', args: { sandbox_id: 'real-client', command: 'python3 -m http.server 8000', background: true }, text: /process/, field: 'process_id' },
  { tool: 'sandbox_expose_port', args: { sandbox_id: 'real-client', port: 8000 }, text: /127\.0\.0\.1/, field: 'host_port' },
  { tool: 'sandbox_list_ports', args: { sandbox_id: 'real-client' }, text: /8000/, field: 'ports' },
  { tool: 'sandbox_close_port', args: { sandbox_id: 'real-client', port: 8000 }, text: /is closed/, field: 'closed' },
  { tool: 'sandbox_create_template', args: { sandbox_id: 'real-client', name: 'real-client' }, text: /made template real-client/, field: 'size_bytes' },
  { tool: 'sandbox_list_templates', args: {}, text: /real-client/, field: 'templates' },
  { tool: 'sandbox_fork', args: { sandbox_id: 'real-client', name: 'real-fork' }, text: /forked sbx-/, field: 'sandboxes' },
  { tool: 'sandbox_delete_template', args: { name: 'real-client' }, text: /real-client/, field: 'deleted' },
  { tool: 'sandbox_destroy', args: { sandbox_id: 'real-fork' }, text: /sbx-/, field: 'destroyed' },
  { tool: 'sandbox_destroy', args: { sandbox_id: 'real-client' }, text: /sbx-/, field: 'destroyed' },
];

// Arguments with which a tool does something sensible on a fresh server, without the calls before it.
export const alone = {
  sandbox_write_file: { path: 'a.txt', content: 'x\n' },
  sandbox_edit_file: { path: '/workspace/none', edits: [{ old_str: 'a', new_str: 'b' }] }, // isError: no such file
  sandbox_read_file: { path: '/etc/passwd' },
  sandbox_exec: { command: 'echo 54' },
  sandbox_eval: { code: '2 ** 10', language: 'python' },
  sandbox_process: { action: 'list' },
  sandbox_port_url: { port: 8000 },
  sandbox_close_port: { port: 8000 },
  sandbox_expose_port: { port: 8000, timeout_s: 0 }, // isError: nothing listens there
  sandbox_create_template: { name: 'alone' },
  sandbox_delete_template: { name: 'none' }, // isError: there is none
  sandbox_destroy: { sandbox_id: 'sbx-000000000000' }, // gone already: a success
};

export function freshHome() {
  const home = mkdtempSync(path.join(tmpdir(), 'hutch-client-'));
  return { home, remove: () => rmSync(home, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 }) };
}

// Command and arguments of the server, behind the recorder when recordings are asked for.
function recorded(command, ...args) {
  const record = process.env.HUTCHTEST_RECORD_DIR;
  return record
    ? { command: 'python3', args: [path.join(here, '../support/record.py'), record, '--', command, ...args] }
    : { command, args };
}
export const server = (...args) => recorded(hutch, 'mcp', ...args);
// The protocol core with toy tools, from the same build.
export const echoServer = () => recorded(path.join(path.dirname(hutch), '../tests/protocol/echo_server'));

export function serverEnv(home) {
  const env = { HUTCH_HOME: home, HOME: home };
  for (const name of ['PATH', 'ASAN_OPTIONS', 'UBSAN_OPTIONS', 'TSAN_OPTIONS', 'HUTCHTEST_LEAK_ROOT'])
    if (process.env[name]) env[name] = process.env[name];
  return env;
}
