{{- define "gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "gateway.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 55 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 55 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "gateway.serviceAccount" -}}
{{- default (include "gateway.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "gateway.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- /* The number of tenants, for the sizing. */}}
{{- define "gateway.tenants" -}}
{{- $count := len .Values.tenants }}
{{- range .Values.tenantConfigMaps }}{{ $count = add $count (len .keys) }}{{ end }}
{{- max 1 (default $count (int .Values.resources.memory.tenants)) }}
{{- end }}

{{- /* Rounds KiB up to a multiple of 16 MiB. */}}
{{- define "gateway.mebibytes" -}}
{{- mul 16 (div (add . 16383) 16384) }}Mi
{{- end }}

{{- /* The most memory that the limits allow, and 5 %. The figures are those of config/guide/sizing.md. */}}
{{- define "gateway.memoryLimit" -}}
{{- $limits := .Values.limits }}
{{- $kib := add (mul 18 1024) (mul 336 (int $limits.maxConnections)) (mul 304 (int $limits.maxRequests)) (mul 1024 (int $limits.bodyMemoryMiB)) (mul 2 (int $limits.idempotencyKeys)) (mul 15 (include "gateway.tenants" . | int)) }}
{{- include "gateway.mebibytes" (div (mul $kib 105) 100) }}
{{- end }}

{{- define "gateway.memoryRequest" -}}
{{- $kib := add (mul 17 1024) (mul 17 (int .Values.limits.maxConnections)) (mul 15 (include "gateway.tenants" . | int)) }}
{{- include "gateway.mebibytes" (mul 2 $kib) }}
{{- end }}

{{- define "gateway.toml" -}}
{{- if or .Values.tenants .Values.tenantConfigMaps }}
include = ["tenants.d/*.toml"]
{{ end }}
[listeners.default]
bind = "0.0.0.0:{{ int .Values.listener.port }}"
allowed_hosts = {{ concat (list (include "gateway.fullname" .) "*.svc" "*.svc.cluster.local") .Values.listener.allowedHosts | toJson }}
max_requests = {{ int .Values.limits.maxRequests }}
{{- if .Values.listener.tlsSecret }}
tls = { certificate = "/run/secrets/listener-tls/tls.crt", key = "/run/secrets/listener-tls/tls.key" }
{{- end }}
{{- with .Values.extraConfig.listener }}
{{ . | trim }}
{{- end }}

[admin]
bind = "0.0.0.0:{{ int .Values.admin.port }}"
{{- if .Values.admin.tlsSecret }}
tls = { certificate = "/run/secrets/admin-tls/tls.crt", key = "/run/secrets/admin-tls/tls.key"
{{- if .Values.admin.clientCaSecret }}, client_ca = "/run/secrets/admin-ca/ca.crt", client_auth = "optional"{{ end }} }
{{- end }}
{{- with .Values.extraConfig.admin }}
{{ . | trim }}
{{- end }}

[limits]
max_connections = {{ int .Values.limits.maxConnections }}
body_memory = "{{ int .Values.limits.bodyMemoryMiB }}MiB"
{{- with .Values.extraConfig.limits }}
{{ . | trim }}
{{- end }}

[idempotency]
keys = {{ int .Values.limits.idempotencyKeys }}
{{- with .Values.redis }}
{{- if .store }}
store = {{ .store | quote }}
when_store_is_out = {{ .whenOut | quote }}
{{- with .username }}
username = {{ . | quote }}
{{- end }}
{{- with .passwordSecret }}
password = { file = "/run/secrets/redis-password/{{ .key }}" }
{{- end }}
{{- with .caSecret }}
ca_file = "/run/secrets/redis-ca/{{ .key }}"
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraConfig.idempotency }}
{{ . | trim }}
{{- end }}

[shutdown]
delay = "{{ int .Values.shutdown.delaySeconds }}s"
timeout = "{{ int .Values.shutdown.timeoutSeconds }}s"

[process]
workers = {{ int .Values.workers }}

[logging]
format = "json"
filter = {{ .Values.logging.filter | quote }}
access = {{ .Values.logging.access | quote }}
{{- with .Values.extraConfig.logging }}
{{ . | trim }}
{{- end }}

{{ .Values.config | trim }}
{{ end }}

{{- /* What the gateway and the test pods mount. */}}
{{- define "gateway.mounts" -}}
- name: config
  mountPath: /etc/signalr-gateway
  readOnly: true
{{- if and .Values.workloadIdentity.enabled (not .Values.workloadIdentity.webhook) }}
- name: identity
  mountPath: /var/run/secrets/azure/tokens
  readOnly: true
{{- end }}
{{- range include "gateway.secrets" . | fromYamlArray }}
- name: secret-{{ .name }}
  mountPath: /run/secrets/{{ .name }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The secrets: those of the values, and those that other values name. */}}
{{- define "gateway.secrets" -}}
{{- $all := .Values.secrets }}
{{- with .Values.listener.tlsSecret }}{{ $all = append $all (dict "name" "listener-tls" "secretName" .) }}{{ end }}
{{- with .Values.admin.tlsSecret }}{{ $all = append $all (dict "name" "admin-tls" "secretName" .) }}{{ end }}
{{- with .Values.admin.clientCaSecret }}{{ $all = append $all (dict "name" "admin-ca" "secretName" .) }}{{ end }}
{{- with .Values.redis.passwordSecret }}{{ $all = append $all (dict "name" "redis-password" "secretName" .name) }}{{ end }}
{{- with .Values.redis.caSecret }}{{ $all = append $all (dict "name" "redis-ca" "secretName" .name) }}{{ end }}
{{- toYaml $all }}
{{- end }}

{{- define "gateway.volumes" -}}
- name: config
  {{- if or .Values.tenants .Values.tenantConfigMaps }}
  # One volume, so that each change is one reload.
  projected:
    sources:
      - configMap:
          name: {{ include "gateway.fullname" . }}
      {{- if .Values.tenants }}
      - configMap:
          name: {{ include "gateway.fullname" . }}-tenants
          items:
            {{- range $name, $_ := .Values.tenants }}
            - { key: {{ $name }}.toml, path: tenants.d/{{ $name }}.toml }
            {{- end }}
      {{- end }}
      {{- range .Values.tenantConfigMaps }}
      - configMap:
          name: {{ .name }}
          items:
            {{- range .keys }}
            - { key: {{ . }}, path: tenants.d/{{ . }} }
            {{- end }}
      {{- end }}
  {{- else }}
  configMap:
    name: {{ include "gateway.fullname" . }}
  {{- end }}
{{- if and .Values.workloadIdentity.enabled (not .Values.workloadIdentity.webhook) }}
# The assertion of the federated credential. The kubelet renews it; the gateway reads it at each acquisition.
- name: identity
  projected:
    sources:
      - serviceAccountToken:
          path: azure-identity-token
          audience: {{ .Values.workloadIdentity.audience }}
          expirationSeconds: 3600
{{- end }}
{{- range include "gateway.secrets" . | fromYamlArray }}
- name: secret-{{ .name }}
  secret:
    secretName: {{ .secretName }}
    defaultMode: 0440
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gateway.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "gateway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end }}
