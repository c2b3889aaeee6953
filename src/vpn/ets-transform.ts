/**
 * ArkTS to JavaScript with OpenHarmony's own compiler, `ohos-typescript`, an optional peer. A `struct` becomes a class that
 * extends `CustomComponent`; its decorators stay. One file at a time and types unchecked, as with node's own type stripping.
 * No ArkUI: what a `build` method describes is not drawn.
 */
import { createRequire } from 'node:module';
import type ts from 'ohos-typescript';

/** The compiler's ArkTS options, without components: it parses `struct` and decorators only when it is given them. */
const ets: ts.EtsOptions = {
  render: { method: ['build'], decorator: ['Builder'] },
  components: [],
  libs: [],
  extend: { decorator: ['Extend'], components: [] },
  styles: { decorator: 'Styles', component: { name: '', type: '', instance: '' }, property: '' },
  concurrent: { decorator: 'Concurrent' },
  customComponent: 'CustomComponent',
  syntaxComponents: { paramsUICallback: [], attrUICallback: [] },
  propertyDecorators: [],
  emitDecorators: [],
} as unknown as ts.EtsOptions;

let compiler: typeof ts | undefined;

/** The application's compiler when ours is not installed, which happens when this package is linked. */
function loadCompiler(path: string): typeof ts {
  for (const from of [import.meta.url, path]) {
    try {
      return createRequire(from)('ohos-typescript') as typeof ts;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  throw new Error(`${path} needs the ArkTS compiler: npm install --save-dev ohos-typescript`);
}

/** ES module source with an inline source map. Throws SyntaxError that names file, line and column. */
export function transformEts(source: string, path: string): string {
  compiler ??= loadCompiler(path);
  const { ScriptTarget, ModuleKind, transpileModule } = compiler;
  const { outputText, diagnostics = [] } = transpileModule(source, {
    fileName: path,
    reportDiagnostics: true,
    transformers: { before: [structToClass(compiler)] },
    compilerOptions: {
      target: ScriptTarget.ES2021,
      module: ModuleKind.ESNext,
      experimentalDecorators: true,
      inlineSourceMap: true,
      ets,
    },
  });
  if (diagnostics.length > 0) throw new SyntaxError(diagnostics.map(describe).join('\n'));
  return outputText;
}

function structToClass({
  isStructDeclaration,
  getDecorators,
  getModifiers,
  visitEachChild,
  SyntaxKind,
}: typeof ts): ts.TransformerFactory<ts.SourceFile> {
  return (context) => {
    const { factory } = context;
    const customComponent = factory.createExpressionWithTypeArguments(
      factory.createIdentifier('CustomComponent'),
      undefined,
    );
    const heritage = factory.createHeritageClause(SyntaxKind.ExtendsKeyword, [customComponent]);
    const visit = (node: ts.Node): ts.Node => {
      if (!isStructDeclaration(node)) return visitEachChild(node, visit, context);
      const modifiers = [...(getDecorators(node) ?? []), ...(getModifiers(node) ?? [])];
      // The parser adds members of its own, such as a constructor; a class does not need them.
      const members = node.members.filter((member) => !(member as { virtual?: boolean }).virtual);
      return factory.createClassDeclaration(modifiers, node.name, node.typeParameters, [heritage], members);
    };
    return (file) => visitEachChild(file, visit, context);
  };
}

function describe({ file, start, messageText }: ts.Diagnostic): string {
  const text = typeof messageText === 'string' ? messageText : messageText.messageText;
  if (!file || start === undefined) return text;
  const { line, character } = file.getLineAndCharacterOfPosition(start);
  return `${file.fileName}:${line + 1}:${character + 1}: ${text}`;
}
