// The Inspector's command line (needs Node 22: the tests run it with the Node of the npm package node-linux-*).
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { alone, calls, freshHome, server, serverEnv } from './calls.mjs';

const launcher = path.join(path.dirname(fileURLToPath(import.meta.url)), 'node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js');

async function inspect(options, serverArgs = []) {
  const { home, remove } = freshHome();
  const { command, args } = server(...serverArgs);
  const env = serverEnv(home);
  const passed = Object.entries(env).flatMap(([k, v]) => ['-e', `${k}=${v}`]);
  try {
    const child = spawn(process.execPath, [launcher, '--cli', ...passed, ...options, '--format', 'json', '--', command, ...args],
      { stdio: ['ignore', 'pipe', 'pipe'], env: { ...env, NO_COLOR: '1' } });
    let out = '', err = '';
    child.stdout.on('data', (d) => (out += d));
    child.stderr.on('data', (d) => (err += d));
    const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
    return { code, out, err };
  } finally {
    remove();
  }
}

for (const era of ['legacy', 'auto', 'modern']) {
  for (const results of ['text', 'structured']) {
    test(`tools/list --strict in era ${era}, results ${results}, finds no error`, async () => {
      const { code, out, err } = await inspect(['--protocol-era', era, '--method', 'tools/list', '--strict'], ['--results', results]);
      assert.equal(code, 0, err + out);
      const names = JSON.parse(out).result.tools.map((t) => t.name);
      assert.deepEqual(new Set(names), new Set(calls.map((c) => c.tool)));
    });
  }
}

// Each call starts a server of its own, so one era is enough for most tools; the SDK clients call all tools in all eras.
for (const [index, { tool }] of calls.entries()) {
  const era = ['legacy', 'modern', 'auto'][index % 3];
  test(`tools/call ${tool} in era ${era}`, async () => {
    const args = alone[tool] ?? {};
    const { code, out, err } = await inspect(['--protocol-era', era, '--method', 'tools/call', '--tool-name', tool,
      '--tool-args-json', JSON.stringify(args)]);
    const isError = ['sandbox_edit_file', 'sandbox_delete_template', 'sandbox_expose_port'].includes(tool); // there is none: exit code 5 says that the tool answered isError
    assert.equal(code, isError ? 5 : 0, err + out);
    if (!isError) assert.ok(JSON.parse(out).result.content.length > 0);
  });
}

for (const era of ['legacy', 'auto', 'modern']) {
  test(`resources are listed and read in era ${era}`, async () => {
    const ask = async (...options) => {
      const { code, out, err } = await inspect(['--protocol-era', era, ...options]);
      assert.equal(code, 0, err + out);
      return JSON.parse(out).result;
    };
    const listed = await ask('--method', 'resources/list');
    assert.deepEqual(listed.resources.map((r) => r.uri), ['hutch://status', 'hutch://config']);
    const read = await ask('--method', 'resources/read', '--uri', 'hutch://status');
    assert.ok(JSON.parse(read.contents[0].text).host.memory_bytes > 0);
  });
}

for (const era of ['legacy', 'modern']) {
  test(`50 calls, 4 at a time, all succeed in era ${era}`, async () => {
    const { code, out, err } = await inspect(['--protocol-era', era, '--method', 'tools/call', '--tool-name', 'sandbox_exec',
      '--tool-args-json', '{"command":"echo hi"}', '--load', '--load-concurrency', '4', '--load-requests', '50']);
    assert.equal(code, 0, err + out);
    const told = JSON.parse(out);
    assert.equal((told.result ?? told).ok, 50, out);
  });
}

test('a command of some seconds is a task for it, whose result it fetches', async () => {
  const { code, out, err } = await inspect(['--protocol-era', 'modern', '--method', 'tools/call', '--tool-name', 'sandbox_exec',
    '--tool-args-json', '{"command":"sleep 6; echo 54"}']);
  assert.equal(code, 0, err + out);
  assert.match(JSON.parse(out).result.content[0].text, /^exit 0 in 6\.\d+ s/);
});
