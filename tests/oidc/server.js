// The certified oidc-provider as a process: an authorization server that we did not write, to judge our client by.
//
// stdin: one line of JSON, {"client_id", "client_secret", "redirect_uris", "access_ttl", "pkce_required", "auth_method",
// "jwks", "par_required"}, so that no secret stands in an argument or an environment; then, at any time, {"advance": seconds}, which moves its clock.
// stdout: one line of JSON when it is ready, {"port"}, and one for each command done. It exits when stdin closes, so
// that it can't outlive the test that started it.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createInterface } from 'node:readline';

// The library warns on the console of what is not for production; stdout is for our own lines.
for (const name of ['log', 'info', 'warn', 'debug']) console[name] = console.error;

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const realNow = Date.now;
let advanced = 0;
Date.now = () => realNow() + advanced * 1000;

const { Provider } = await import('oidc-provider');

function configuration(asked) {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const signs = asked.auth_method === 'private_key_jwt';
  return {
    clients: [{
      client_id: asked.client_id,
      ...(signs ? { jwks: asked.jwks } : { client_secret: asked.client_secret }),
      redirect_uris: asked.redirect_uris,
      application_type: 'web',
      grant_types: [
        'authorization_code',
        'refresh_token',
        'client_credentials',
        'urn:ietf:params:oauth:grant-type:device_code',
      ],
      response_types: ['code'],
      token_endpoint_auth_method: asked.auth_method,
      id_token_signed_response_alg: 'ES256',
    }],
    clientAuthMethods: [asked.auth_method],
    clockTolerance: 0,
    cookies: { keys: [randomBytes(32).toString('hex')] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      pushedAuthorizationRequests: { enabled: true, requirePushedAuthorizationRequests: asked.par_required },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: (_, audience) => ({ audience, scope: 'api:read', accessTokenFormat: 'opaque' }),
        useGrantedResource: () => true,
      },
      revocation: { enabled: true },
      userinfo: { enabled: true },
    },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    issueRefreshToken: (_, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256' }] },
    pkce: { required: () => asked.pkce_required },
    rotateRefreshToken: true,
    scopes: ['openid', 'offline_access'],
    ttl: {
      AccessToken: asked.access_ttl,
      AuthorizationCode: 60,
      ClientCredentials: asked.access_ttl,
      DeviceCode: 600,
      Grant: 86400,
      IdToken: 3600,
      Interaction: 600,
      RefreshToken: 86400,
      Session: 86400,
    },
  };
}

// The resource: who the bearer of a live access token is.
async function me(provider, ctx) {
  const [, token] = /^Bearer ([\x21-\x7e]+)$/i.exec(ctx.get('authorization')) ?? [];
  const found = token && ((await provider.AccessToken.find(token)) ?? (await provider.ClientCredentials.find(token)));
  if (!found) {
    ctx.status = 401;
    ctx.set('WWW-Authenticate', 'Bearer realm="oidc-provider", error="invalid_token"');
    ctx.body = { error: 'invalid_token' };
    return;
  }
  ctx.body = { sub: found.accountId ?? null, client_id: found.clientId, scope: found.scope ?? '', aud: found.aud ?? null };
}

const server = createServer();
server.keepAliveTimeout = 60_000;  // longer than clients keep a connection, so that no request meets its end
const lines = createInterface({ input: process.stdin });

function start(asked) {
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    const provider = new Provider(`http://127.0.0.1:${port}`, configuration(asked));
    provider.use(async (ctx, next) => (ctx.path === '/api/me' ? me(provider, ctx) : next()));
    provider.on('server_error', (_, error) => console.error(error));
    server.on('request', provider.callback());
    say({ port });
  });
}

lines.once('line', (first) => {
  start(JSON.parse(first));
  lines.on('line', (line) => {
    advanced += JSON.parse(line).advance;
    say({ advanced });
  });
});
lines.on('close', () => process.exit(0));
