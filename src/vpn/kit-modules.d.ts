// biome-ignore-all lint/style/noRestrictedImports: module declarations take no relative paths
// biome-ignore-all lint/style/noDefaultExport: the name of this export is not ours to choose
/**
 * The module names of the documented examples, for the user's compiler. A declaration file of its own, without imports: only
 * such a file may declare modules that no package provides. The package ships it from here, next to its source.
 */
declare module '@kit.NetworkKit' {
  export { socket, vpn } from 'vpn-manager/kit';
}
declare module '@kit.AbilityKit' {
  export { common } from 'vpn-manager/kit';
}
declare module '@kit.BasicServicesKit' {
  export { AsyncCallback, BusinessError, Callback, ErrorCallback } from 'vpn-manager/kit';
}
declare module '@ohos.net.vpn' {
  export { vpn as default } from 'vpn-manager/kit';
}
