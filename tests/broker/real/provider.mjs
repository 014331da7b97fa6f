// A provider of access tokens: `provider.mjs SECRET`. Prints its issuer, and then a line for each token that it gives.
// Its clients, one for each way of proving who asks, have this secret. Each run has keys of its own.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";

// It warns that it keeps nothing.
for (const name of ["info", "log", "warn"]) console[name] = () => {};
const { default: Provider } = await import("oidc-provider");

const [client_secret] = process.argv.slice(2);
const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
const client = (token_endpoint_auth_method) => ({
  client_id: `broker:${token_endpoint_auth_method}`,
  client_secret,
  token_endpoint_auth_method,
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
});

const server = createServer();
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: [client("client_secret_basic"), client("client_secret_post")],
  clientDefaults: { id_token_signed_response_alg: "ES256" },
  jwks: { keys: [{ ...key, alg: "ES256", use: "sig" }] },
  ttl: { ClientCredentials: 600 },
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: "issues pulls",
        audience: resource,
        accessTokenFormat: "opaque",
      }),
    },
  },
});
provider.on("grant.success", () => process.stdout.write("token\n"));
server.on("request", provider.callback());
process.stdout.write(`${issuer}\n`);
