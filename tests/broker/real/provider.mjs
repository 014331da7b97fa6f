// A provider of access tokens: `provider.mjs SECRET BACK KEY PORT`, the secret of all clients, where people are sent back to,
// the public key of the client that signs, which is `broker:private_key_jwt`, and where it listens; 0 for anywhere.
// Prints its issuer, and then a line for each token that it gives. Each run has keys of its own.
// There is one client for each way of proving who asks; people connect with `broker:people`, and agree to everything.
// `slow N` on standard input makes it answer refreshes after N milliseconds.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

// It warns that it keeps nothing.
for (const name of ["info", "log", "warn"]) console[name] = () => {};
const { default: Provider, errors } = await import("oidc-provider");

const [client_secret, back, publicKey, port] = process.argv.slice(2);
const exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
const client = (token_endpoint_auth_method) => ({
  client_id: `broker:${token_endpoint_auth_method}`,
  client_secret,
  token_endpoint_auth_method,
  grant_types: ["client_credentials", exchange],
  redirect_uris: [],
  response_types: [],
});
const people = {
  client_id: "broker:people",
  client_secret,
  grant_types: ["authorization_code", "refresh_token", exchange],
  redirect_uris: [back],
};

const resourceServer = (resource) => ({
  scope: "issues pulls",
  audience: resource,
  accessTokenFormat: resource.endsWith("/jwt") ? "jwt" : "opaque",
});

const signing = {
  client_id: "broker:private_key_jwt",
  token_endpoint_auth_method: "private_key_jwt",
  jwks: { keys: [JSON.parse(publicKey)] },
  grant_types: ["client_credentials", "authorization_code", "refresh_token", exchange],
  redirect_uris: [back],
};

const server = createServer();
await new Promise((done) => server.listen(Number(port), "127.0.0.1", done));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: [client("client_secret_basic"), client("client_secret_post"), people, signing],
  clientDefaults: { id_token_signed_response_alg: "ES256" },
  jwks: { keys: [{ ...key, alg: "ES256", use: "sig" }] },
  ttl: { ClientCredentials: 600, AccessToken: 600, IdToken: 600 },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: () => true,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_, { uid }) => `/agree/${uid}` },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => resourceServer(resource),
    },
  },
});

// People log in by the name in `login_hint`.
async function agree(request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  if (prompt.name === "login") {
    const login = { accountId: params.login_hint ?? "alice" };
    return provider.interactionFinished(request, response, { login });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope("openid offline_access");
  grant.addResourceScope(params.resource, "issues pulls");
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
}

// A token for one that is good, with fewer scopes, for one of its resources, and under a grant of its own: so it ends alone.
async function exchanged(context) {
  const { params, client } = context.oidc;
  const kinds = [provider.AccessToken, provider.ClientCredentials];
  const [subject] = (await Promise.all(kinds.map((kind) => kind.find(params.subject_token)))).filter(Boolean);
  if (subject?.clientId !== client.clientId) throw new errors.InvalidGrant("no token of this client");
  const scopes = params.scope.split(" ");
  if (!scopes.every((one) => subject.scope.split(" ").includes(one))) throw new errors.InvalidScope("too wide");
  if (!params.resource?.startsWith(subject.aud)) throw new errors.InvalidTarget("not for this");
  const grantId = await new provider.Grant({ accountId: subject.accountId, clientId: client.clientId }).save();
  const token = new provider.AccessToken({ client, accountId: subject.accountId ?? client.clientId, grantId });
  token.resourceServer = new provider.ResourceServer(params.resource, resourceServer(params.resource));
  token.scope = params.scope;
  const issued_token_type = params.requested_token_type;
  const access_token = await token.save();
  context.body = { access_token, issued_token_type, token_type: "Bearer", expires_in: token.expiration };
}
const asked = ["subject_token", "subject_token_type", "requested_token_type", "audience", "resource", "scope"];
provider.registerGrantType(exchange, exchanged, asked);

let pause = 0;
provider.use(async (context, next) => {
  await next();
  if (context.oidc?.params?.grant_type === "refresh_token") await new Promise((done) => setTimeout(done, pause));
});
createInterface(process.stdin).on("line", (line) => (pause = Number(line.replace("slow ", ""))));
provider.on("grant.success", () => process.stdout.write("token\n"));
const callback = provider.callback();
server.on("request", (request, response) =>
  (request.url.startsWith("/agree/") ? agree : callback)(request, response),
);
process.stdout.write(`${issuer}\n`);
