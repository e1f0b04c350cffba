// bb_storage as a single node that keeps everything on disk. `LISTEN=HOST:PORT DIR=/path bb_storage storage.jsonnet`
//
// Only what a cache needs; see the Buildbarn documentation for authentication, sharding and mirroring. Assetgate does
// not care which of them you use: it speaks to the gRPC port like any other client.
local mib = 1024 * 1024;
local onDisk(name, bytes, newBlocks) = { 'local': {
  keyLocationMapOnBlockDevice: { file: {
    path: std.extVar('DIR') + '/' + name + '/key_location_map',
    sizeBytes: 16 * mib,
  } },
  keyLocationMapMaximumGetAttempts: 16,
  keyLocationMapMaximumPutAttempts: 64,
  oldBlocks: 8,
  currentBlocks: 24,
  newBlocks: newBlocks,  // an Action Cache must have 1
  blocksOnBlockDevice: {
    source: { file: { path: std.extVar('DIR') + '/' + name + '/blocks', sizeBytes: bytes } },
    spareBlocks: 3,
  },
  persistent: {
    stateDirectoryPath: std.extVar('DIR') + '/' + name + '/persistent_state',
    minimumEpochInterval: '300s',
  },
} };
{
  contentAddressableStorage: {
    backend: onDisk('cas', 8192 * mib, 3),
    getAuthorizer: { allow: {} },
    putAuthorizer: { allow: {} },
    findMissingAuthorizer: { allow: {} },
  },
  // Answers only with results whose outputs are all there, so a reference and its content leave together.
  actionCache: {
    backend: { completenessChecking: {
      backend: onDisk('ac', 64 * mib, 1),
      maximumTotalTreeSizeBytes: 64 * mib,
    } },
    getAuthorizer: { allow: {} },
    putAuthorizer: { allow: {} },
  },
  grpcServers: [{
    listenAddresses: [std.extVar('LISTEN')],
    authenticationPolicy: { allow: {} },
  }],
  maximumMessageSizeBytes: 16 * mib,
  global: {},
}
