// A provider of log-ins: `provider.mjs ORIGIN [PORT]`, where the console is, and where to listen. Prints its issuer.
// Anyone may log in by any name. Each run has keys of its own.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";

// It warns that it keeps nothing, and that anyone may log in.
for (const name of ["info", "log", "warn"]) console[name] = () => {};
const { default: Provider } = await import("oidc-provider");

const [origin, port = "0"] = process.argv.slice(2);
const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
const client = (client_id, more) => ({
  client_id,
  client_secret: "a-secret-of-the-console",
  redirect_uris: [`${origin}/log-in/back`],
  post_logout_redirect_uris: [`${origin}/out`],
  grant_types: ["authorization_code", "refresh_token"],
  ...more,
});

const server = createServer();
await new Promise((done) => server.listen(Number(port), "127.0.0.1", done));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: [client("console", { require_auth_time: true }), client("plain"), client("silent")],
  clientDefaults: { id_token_signed_response_alg: "ES256" },
  jwks: { keys: [{ ...key, alg: "ES256", use: "sig" }] },
  pkce: { required: () => true },
  ttl: { AccessToken: 600, IdToken: 600 },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  extraTokenClaims: () => ({ person: true }),
  features: {
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        scope: "use",
        audience: resource,
        accessTokenFormat: "jwt",
        accessTokenTTL: 600,
        jwt: { sign: { alg: "ES256" } },
      }),
    },
  },
});
// A provider that leaves out when the person logged in, whatever it is asked: it never sees the question.
provider.use(async (context, next) => {
  const { max_age, prompt, ...query } = context.query;
  if (query.client_id === "silent") context.query = query;
  await next();
});
server.on("request", provider.callback());
process.stdout.write(`${issuer}\n`);
