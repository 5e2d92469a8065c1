// Drives Netacea's own Cloudflare plugin, unmodified, as Netacea's worker
// template does: run() for the decision, ingest() for the log. Reads what to do
// from the file named first (see plugin_test.go) and prints what came of it.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const plan = JSON.parse(readFileSync(process.argv[2], 'utf8'))

// The plugin binds fetch as it is loaded; this only looks on.
const real = globalThis.fetch
let answers = []
globalThis.fetch = async (url, request) => {
  const response = await real(url, request)
  if (String(url).startsWith(plan.ingest)) answers.push({ status: response.status, body: await response.clone().text() })
  return response
}
const plugin = createRequire(import.meta.url)(plan.package)
const Netacea = plugin.default ?? plugin

const results = []
const cookies = {}
for (const step of plan.steps) {
  const worker = new Netacea({
    apiKey: plan.key,
    secretKey: 'a secret of the worker',
    mitigationServiceUrl: plan.protector,
    ingestServiceUrl: plan.ingest,
    mitigationType: step.mode,
    ingestType: 'HTTP',
    logVersion: plan.version,
    timeout: step.timeout || 20000,
  })
  const headers = { 'cf-connecting-ip': step.ip, 'user-agent': step.agent, referer: 'https://www.example.org/', accept: '*/*' }
  if (step.cookieOf) headers.cookie = `theme=dark; _mitata=${cookies[step.cookieOf]}`
  const request = new Request(`https://Shop.Example.com${step.path}?token=of-the-visitor`, { method: step.method, headers })
  Object.defineProperty(request, 'cf', { value: { httpProtocol: 'HTTP/2' } })
  answers = []
  const result = await worker.run({ request }, async () => new Response('hello', { headers: { 'content-length': '5' } }))
  const response = result.response ?? result
  const set = response.headers.getSetCookie().find((c) => c.startsWith('_mitata='))
  if (set) cookies[step.name] = set.slice('_mitata='.length).split(';')[0]
  let error = ''
  try {
    await worker.ingest(request, result)
  } catch (e) {
    error = String(e)
  }
  results.push({ name: step.name, visitor: response.status, answers, error, cookie: cookies[step.name] ?? '' })
}
console.log(JSON.stringify(results))
process.exit(0) // a Protector that hangs would keep us
