//! The schema, and our words in Cedar's: types, ids and entities.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression, Schema, ValidationMode,
    Validator,
};

use super::question::{Facts, KeyFacts, Question, Target};
use crate::error::{Error, Result};
use crate::types::{
    Action, Caller, Credential, EndpointName, IssuerName, Name, Principal, ProfileName, Resource, Subject,
};

/// The id of the one entity of type `Service`.
const SERVICE: &str = "signet";

static VOCABULARY: LazyLock<Result<Vocabulary, String>> = LazyLock::new(Vocabulary::read);

/// What is parsed once for the whole process.
pub(super) struct Vocabulary {
    validator: Validator,
    types: Types,
    actions: HashMap<Action, EntityUid>,
    /// Which actions apply to which types of resource.
    applicable: HashSet<(Action, EntityTypeName)>,
}

struct Types {
    identity: EntityTypeName,
    system: EntityTypeName,
    group: EntityTypeName,
    namespace: EntityTypeName,
    key: EntityTypeName,
    issuer: EntityTypeName,
    profile: EntityTypeName,
    acme_endpoint: EntityTypeName,
    policy: EntityTypeName,
    identity_record: EntityTypeName,
    token: EntityTypeName,
    service: EntityTypeName,
}

impl Vocabulary {
    /// The one of this process.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] if the schema that is compiled in does not parse, which a test excludes.
    pub(super) fn load() -> Result<&'static Self> {
        VOCABULARY.as_ref().map_err(|e| Error::internal(format!("the policy schema: {e}")))
    }

    fn read() -> Result<Self, String> {
        let (schema, _) =
            Schema::from_cedarschema_str(include_str!("schema.cedarschema")).map_err(|e| format!("{e:?}"))?;
        let name = |text: &str| text.parse::<EntityTypeName>().map_err(|e| e.to_string());
        let action_type = name("Signet::Action")?;
        let actions: HashMap<_, _> =
            Action::ALL.iter().map(|action| (*action, uid(&action_type, action.as_str()))).collect();
        let mut applicable = HashSet::new();
        for (action, id) in &actions {
            let resources = schema.resources_for_action(id).ok_or_else(|| format!("{action} is not declared"))?;
            applicable.extend(resources.map(|kind| (*action, kind.clone())));
        }
        let types = Types {
            identity: name("Signet::Identity")?,
            system: name("Signet::System")?,
            group: name("Signet::Group")?,
            namespace: name("Signet::Namespace")?,
            key: name("Signet::Key")?,
            issuer: name("Signet::Issuer")?,
            profile: name("Signet::Profile")?,
            acme_endpoint: name("Signet::AcmeEndpoint")?,
            policy: name("Signet::Policy")?,
            identity_record: name("Signet::IdentityRecord")?,
            token: name("Signet::Token")?,
            service: name("Signet::Service")?,
        };
        Ok(Self { validator: Validator::new(schema), types, actions, applicable })
    }

    /// Cedar's strict validation of `set` against the schema.
    pub(super) fn validate(&self, set: &cedar_policy::PolicySet) -> cedar_policy::ValidationResult {
        self.validator.validate(set, ValidationMode::Strict)
    }

    #[cfg(test)]
    pub(super) fn schema(&self) -> &Schema {
        self.validator.schema()
    }

    /// Whether the schema lets `action` be done to this type of resource at all.
    pub(super) fn applies(&self, action: Action, resource: &EntityUid) -> bool {
        self.applicable.contains(&(action, resource.type_name().clone()))
    }

    /// The action as an entity.
    pub(super) fn action(&self, action: Action) -> Option<&EntityUid> {
        self.actions.get(&action)
    }

    /// The action that an entity of a policy names.
    pub(super) fn named_action(&self, id: &EntityUid) -> Option<Action> {
        let action = id.id().unescaped().parse().ok()?;
        (self.actions.get(&action) == Some(id)).then_some(action)
    }

    /// The principal as an entity.
    pub(super) fn principal(&self, principal: &Principal) -> EntityUid {
        match principal {
            Principal::Identity(name) => uid(&self.types.identity, name.as_str()),
            Principal::System(job) => uid(&self.types.system, job),
        }
    }

    /// A group as an entity.
    pub(super) fn group(&self, name: &Name) -> EntityUid {
        uid(&self.types.group, name.as_str())
    }

    /// The resource as an entity.
    pub(super) fn resource(&self, resource: &Resource) -> EntityUid {
        match resource {
            Resource::Key(name) => uid(&self.types.key, &name.to_string()),
            Resource::Issuer(name) => uid(&self.types.issuer, &name.to_string()),
            Resource::Profile(name) => uid(&self.types.profile, &name.to_string()),
            Resource::AcmeEndpoint(name) => uid(&self.types.acme_endpoint, &name.to_string()),
            Resource::Namespace(name) => uid(&self.types.namespace, name.as_str()),
            Resource::Policy(name) => uid(&self.types.policy, name.as_str()),
            Resource::Identity(name) => uid(&self.types.identity_record, name.as_str()),
            Resource::Token(id) => uid(&self.types.token, id),
            Resource::Service => uid(&self.types.service, SERVICE),
        }
    }

    /// What the resource lies in.
    pub(super) fn parent(&self, resource: &Resource) -> Option<EntityUid> {
        let namespace = match resource {
            Resource::Key(key) => &key.namespace,
            Resource::Issuer(issuer) => &issuer.namespace,
            Resource::Profile(profile) => &profile.namespace,
            Resource::AcmeEndpoint(endpoint) => &endpoint.namespace,
            Resource::Namespace(_)
            | Resource::Policy(_)
            | Resource::Identity(_)
            | Resource::Token(_)
            | Resource::Service => return None,
        };
        Some(uid(&self.types.namespace, namespace.as_str()))
    }

    /// The two entities of a question. Groups and namespaces have nothing to say but their id, so they need not be there.
    pub(super) fn entities(&self, question: &Question<'_>) -> Result<Entities, String> {
        let groups = question.groups.iter().map(|group| self.group(group)).collect();
        let name = match question.principal {
            Principal::Identity(name) => text(name.as_str()),
            Principal::System(job) => text(job),
        };
        let attributes = HashMap::from([("name".to_owned(), name)]);
        let principal =
            Entity::new(self.principal(question.principal), attributes, groups).map_err(|e| e.to_string())?;
        let resource = self.resource_entity(question.target)?;
        Entities::from_entities([principal, resource], None).map_err(|e| e.to_string())
    }

    fn resource_entity(&self, target: &Target<'_>) -> Result<Entity, String> {
        let mut attributes: Vec<(&str, RestrictedExpression)> = Vec::new();
        match &target.resource {
            Resource::Key(key) => {
                attributes.push(("namespace", text(key.namespace.as_str())));
                attributes.push(("name", text(key.name.as_str())));
                attributes.extend(target.key.iter().flat_map(key_attributes));
            }
            Resource::Issuer(IssuerName { namespace, name })
            | Resource::Profile(ProfileName { namespace, name })
            | Resource::AcmeEndpoint(EndpointName { namespace, name }) => {
                attributes.push(("namespace", text(namespace.as_str())));
                attributes.push(("name", text(name.as_str())));
            }
            Resource::Namespace(name) | Resource::Policy(name) | Resource::Identity(name) => {
                attributes.push(("name", text(name.as_str())));
            }
            Resource::Token(_) | Resource::Service => {}
        }
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let parents = self.parent(&target.resource).into_iter().collect();
        Entity::new(self.resource(&target.resource), attributes, parents).map_err(|e| e.to_string())
    }
}

fn key_attributes<'a>(facts: &KeyFacts<'a>) -> Vec<(&'a str, RestrictedExpression)> {
    let KeyFacts { purpose, algorithm, domain, device, labels } = *facts;
    let mut attributes = vec![
        ("purpose", text(purpose.as_str())),
        ("algorithm", text(algorithm.as_str())),
        ("device", text(device.as_str())),
        ("labels", pairs(labels)),
    ];
    attributes.extend(domain.map(|domain| ("domain", text(domain.as_str()))));
    attributes
}

/// The record `context` of a request: see the schema.
pub(super) fn context(caller: Option<&Caller>, facts: &Facts<'_>) -> Result<Context, String> {
    let Facts { context, algorithm, digest, profile, name, subject, proven, requested, time } = *facts;
    let mut fields: Vec<(&str, RestrictedExpression)> = Vec::new();
    if let Some(caller) = caller {
        let kind = match &caller.credential {
            Credential::Token(_) => "token",
            Credential::Certificate(_) => "certificate",
            Credential::AcmeAccount(_) => "acme",
            Credential::Process => "process",
        };
        fields.push(("credential", text(kind)));
        // An IPv4 client of an IPv6 socket is that IPv4 client: a range in a policy must hold for both spellings.
        let address = caller.address.map(|address| address.to_canonical().to_string());
        fields.extend(address.map(|address| ("address", RestrictedExpression::new_ip(address))));
    }
    // Cedar reads milliseconds, and four digits of a year; what is out of its range fails below and refuses.
    let time = time.map(|time| time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string());
    fields.extend(time.map(|time| ("time", RestrictedExpression::new_datetime(time))));
    fields.extend(context.map(|context| ("context", pairs(context.entries()))));
    fields.extend(algorithm.map(|algorithm| ("algorithm", text(algorithm.as_str()))));
    fields.extend(digest.map(|digest| ("digest", text(digest.as_str()))));
    fields.extend(profile.map(|profile| ("profile", text(&profile.to_string()))));
    fields.extend(name.map(|name| ("name", text(name))));
    fields.extend(subject.map(attributes).transpose()?.map(|subject| ("subject", subject)));
    fields.extend(requested.map(|requested| ("requested", RestrictedExpression::new_bool(requested))));
    fields.extend(proven.map(|proven| ("proven", RestrictedExpression::new_bool(proven))));
    Context::from_pairs(fields.into_iter().map(|(name, value)| (name.to_owned(), value))).map_err(|e| e.to_string())
}

/// The attributes that a subject has.
fn attributes(subject: &Subject) -> Result<RestrictedExpression, String> {
    let Subject { country, province, locality, organization, organizational_unit, common_name } = subject;
    let fields = [
        ("country", country),
        ("province", province),
        ("locality", locality),
        ("organization", organization),
        ("organizational_unit", organizational_unit),
        ("common_name", common_name),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), text(value.as_deref()?))));
    RestrictedExpression::new_record(fields).map_err(|e| e.to_string())
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn pairs(map: &BTreeMap<String, String>) -> RestrictedExpression {
    RestrictedExpression::new_set(map.iter().map(|(name, value)| RestrictedExpression::new_string(pair(name, value))))
}

/// `name=value`, with `=` and `\` of the name escaped, so that different pairs never read alike.
pub(super) fn pair(name: &str, value: &str) -> String {
    if name.contains(['=', '\\']) {
        format!("{}={value}", name.replace('\\', "\\\\").replace('=', "\\="))
    } else {
        format!("{name}={value}")
    }
}
