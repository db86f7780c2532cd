// The main job before your eyes: the official MCP client SDK starts `hutch mcp`, as Claude Code would, and works in a
// sandbox. Usage: node quickstart.mjs /path/to/hutch
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { homedir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

const hutch = path.resolve(process.argv[2] ?? 'build/src/hutch');
const bold = (text) => (process.stdout.isTTY ? `\x1b[1m${text}\x1b[0m` : text);

async function step(title, work) {
  const start = performance.now();
  const shown = await work();
  const took = performance.now() - start;
  console.log(`  ${title.padEnd(44)} ${took.toFixed(1).padStart(8)} ms   ${shown}`);
}

function must(condition, text) {
  if (!condition) throw new Error(text);
}

const secrets = mkdtempSync(path.join(homedir(), 'hutch-quickstart-'));
const secretFile = path.join(secrets, 'secret.txt');
writeFileSync(secretFile, 'a secret of the host');
const hostPort = createServer().listen(0, '127.0.0.1');
await new Promise((resolve) => hostPort.once('listening', resolve));

const client = new Client({ name: 'hutch-quickstart', version: '1' });
// Only what is in `env` reaches the server; nothing of it reaches a sandbox.
const env = Object.fromEntries(['PATH', 'HOME', 'HUTCH_HOME', 'XDG_DATA_HOME', 'XDG_RUNTIME_DIR', 'ASAN_OPTIONS']
  .filter((name) => process.env[name]).map((name) => [name, process.env[name]]));
const transport = new StdioClientTransport({ command: hutch, args: ['mcp', '--results', 'structured'], env });

async function call(name, args) {
  const result = await client.callTool({ name, arguments: args });
  if (result.isError) throw new Error(`${name}: ${result.content.map((c) => c.text).join('\n')}`);
  return result.structuredContent;
}

try {
  console.log(`\n${bold('A program in a sandbox')}`);
  await step('start the server', async () => {
    await client.connect(transport);
    return `hutch ${client.getServerVersion().version}`;
  });
  await step('list its tools', async () => `${(await client.listTools()).tools.length} tools`);
  let box;
  await step('create a sandbox', async () => {
    const made = await call('sandbox_create', { name: `quickstart-${process.pid}`, memory: '512m' });
    box = made.sandbox_id;
    return `${box}, runtime ${made.runtime}`;
  });
  const run = async (expected) => {
    const done = await call('sandbox_exec', { sandbox_id: box, command: 'python3 primes.py' });
    must(done.stdout.trim() === expected, `the program printed ${JSON.stringify(done)}, not ${expected}`);
    return done.stdout.trim();
  };
  await step('write primes.py', async () => {
    const content = 'limit = 20\nprint([n for n in range(2, limit) if all(n % d for d in range(2, n))])\n';
    return `${(await call('sandbox_write_file', { sandbox_id: box, path: 'primes.py', content })).bytes_written} bytes`;
  });
  await step('run it', () => run('[2, 3, 5, 7, 11, 13, 17, 19]'));
  await step('edit it', async () => {
    const edits = [{ old_str: 'limit = 20', new_str: 'limit = 12' }];
    return `${(await call('sandbox_edit_file', { sandbox_id: box, path: 'primes.py', edits })).replacements} replacement`;
  });
  await step('run it again', () => run('[2, 3, 5, 7, 11]'));

  console.log(`\n${bold("What is out of the sandbox's reach")}`);
  const refused = (command, why) => async () => {
    const done = await call('sandbox_exec', { sandbox_id: box, command });
    must(done.end === 'exited' && done.exit_code !== 0, `${command} worked in the sandbox: ${JSON.stringify(done)}`);
    const words = (done.stderr.trim().split('\n').pop() || `exit ${done.exit_code}`).split(': ').pop();
    return `${why}: ${words}`;
  };
  await step("read a file in your home folder", refused(`cat ${secretFile}`, 'no'));
  await step('read /etc/shadow', refused('cat /etc/shadow', 'no'));
  await step('change a program of the host', async () => {
    const before = readFileSync('/usr/bin/env');
    await call('sandbox_exec', { sandbox_id: box, command: 'echo x > /usr/bin/env' });
    must(before.equals(readFileSync('/usr/bin/env')), 'the sandbox changed /usr/bin/env of the host');
    return 'no: it changes its own copy at most';
  });
  await step('see the processes of the host', async () => {
    const done = await call('sandbox_exec', { sandbox_id: box, command: `ls -d /proc/[0-9]* | wc -l; test -e /proc/${process.pid} && grep -qa quickstart /proc/${process.pid}/cmdline && echo seen || true` });
    must(!done.stdout.includes('seen'), 'the sandbox sees this program');
    return `no: it sees ${done.stdout.trim()}, all its own`;
  });
  await step("reach a server on the host's loopback", refused(
    `python3 -c "import socket; socket.create_connection(('127.0.0.1', ${hostPort.address().port}), 2)"`, 'no'));
  await step('see a network', async () => {
    const done = await call('sandbox_exec', { sandbox_id: box, command: "sed 1,2d /proc/net/dev | cut -d: -f1" });
    must(done.stdout.trim() === 'lo', `the sandbox has a network: ${done.stdout}`);
    return 'no: loopback only';
  });
  await step('destroy the sandbox', async () => `${(await call('sandbox_destroy', { sandbox_id: box })).destroyed.length} gone`);
  await step('end the server', async () => { await client.close(); return 'nothing is left'; });

  const entry = (extra = {}) => ({ hutch: { ...extra, command: hutch, args: ['mcp'] } });
  console.log(`
${bold('Give it to your agent')}

  Claude Code, in a shell:
    claude mcp add hutch -- ${hutch} mcp

  Cursor, in .cursor/mcp.json:
    ${JSON.stringify({ mcpServers: entry() })}

  VS Code, in .vscode/mcp.json:
    ${JSON.stringify({ servers: entry({ type: 'stdio' }) })}
`);
} catch (error) {
  console.error(`\nquick start failed: ${error.message}\nSee what this host lacks: ${hutch} doctor`);
  process.exitCode = 1;
} finally {
  await client.close();
  hostPort.close();
  rmSync(secrets, { recursive: true, force: true });
}
